//! The command line of an init container. What a program reads from it is the program's matter: whoever asks about a
//! pod brings a [`ReadInvocation`].

use crate::options::Settings;

/// What a command line asks for, or all that is wrong with it; `None` where it is not known, or does not redirect.
pub type ReadInvocation = dyn Fn(&Invocation<'_>) -> Option<Result<Settings, Vec<String>>>;

/// The command line of an init container.
pub struct Invocation<'n> {
    /// The name of the container: some of them say which program the image has.
    pub container: &'n str,
    /// The words: the program, if [`Self::has_program`], and its arguments.
    pub words: Vec<&'n str>,
    /// Whether the program is among the words, rather than part of the image.
    pub has_program: bool,
    /// The variables whose values are known.
    pub variables: Vec<(&'n str, &'n str)>,
}
