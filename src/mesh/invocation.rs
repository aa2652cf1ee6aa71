//! The command line of an init container. The modules above parse it: the caller passes a [`ReadInvocation`].

use crate::options::Settings;

/// Parses a command line: its settings, or its errors; `None` if the program is unknown, or does not redirect.
pub type ReadInvocation = dyn Fn(&Invocation<'_>) -> Option<Result<Settings, Vec<String>>>;

/// The command line of an init container.
pub struct Invocation<'n> {
    /// The name of the container, which may identify the program of the image.
    pub container: &'n str,
    /// The words: the program, if [`Self::has_program`], and its arguments.
    pub words: Vec<&'n str>,
    /// Whether the first word is the program, rather than the image's.
    pub has_program: bool,
    /// The environment variables with literal values.
    pub variables: Vec<(&'n str, &'n str)>,
}
