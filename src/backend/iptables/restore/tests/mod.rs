//! The backend against this machine's kernel and programs. Each test has a network namespace of its own, and fails
//! where it may not make one.

mod lab;
mod messages;
mod programs;
mod rules;
