//! `batonmq passwd`: a password in, its argon2id hash out.
//!
//! The password comes from the terminal, without an echo and twice, or as one line of standard input. It is nowhere in
//! the arguments, where every user of the machine could see it.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use argon2::{Argon2, password_hash::PasswordHasher as _};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::{Exit, Failure};

#[derive(Debug, thiserror::Error)]
enum PasswdError {
    #[error("the password is empty")]
    Empty,
    #[error("the two passwords differ")]
    Differ,
    #[error("cannot hash the password")]
    Hash(#[source] argon2::password_hash::Error),
}

/// Asks for a password and prints its hash on standard output.
pub(super) fn run() -> Result<(), Failure> {
    let password = if io::stdin().is_terminal() { ask()? } else { read_line()? };
    let hash = hash(&password).map_err(|error| {
        let fix = match error {
            PasswdError::Empty => "type it, or pipe it in as one line",
            PasswdError::Differ => "run the command again",
            PasswdError::Hash(_) => "",
        };
        Failure::new(Exit::Other, &error, fix)
    })?;
    println!("{hash}");
    Ok(())
}

/// A hash with the parameters that OWASP recommends for argon2id (19 MiB, 2 passes), in PHC format.
fn hash(password: &str) -> Result<String, PasswdError> {
    if password.is_empty() {
        return Err(PasswdError::Empty);
    }
    let hash = Argon2::default().hash_password(password.as_bytes()).map_err(PasswdError::Hash)?;
    Ok(hash.to_string())
}

fn ask() -> Result<String, Failure> {
    let silence = Silence::begin()?;
    let first = prompt("Password: ")?;
    let second = prompt("Again: ")?;
    drop(silence);
    if first == second { Ok(first) } else { Err(Failure::new(Exit::Other, &PasswdError::Differ, "run it again")) }
}

fn prompt(text: &str) -> io::Result<String> {
    eprint!("{text}");
    io::stderr().flush()?;
    let line = read_line()?;
    eprintln!(); // the newline that was typed is not echoed either
    Ok(line)
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence {
    before: Termios,
}

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before) {
            eprintln!("batonmq: cannot restore the terminal's echo: {error}; run `stty echo`");
        }
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordVerifier as _, phc::PasswordHash};

    use super::*;

    #[test]
    fn a_hash_verifies_its_password_and_no_other() {
        let text = hash("correct horse").unwrap();
        assert!(text.starts_with("$argon2id$v=19$"), "{text}");
        let parsed = PasswordHash::new(&text).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"battery staple", &parsed).is_err());
        assert!(matches!(hash(""), Err(PasswdError::Empty)));
    }
}
