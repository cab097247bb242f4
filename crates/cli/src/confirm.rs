//! Asking before something is changed.

use std::io::{IsTerminal as _, Write as _};

/// Asks on the terminal. `answer` is what must be typed, so that nobody says yes to the wrong thing. With `yes` nobody is asked.
pub fn confirm(question: &str, answer: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    anyhow::ensure!(
        std::io::stdin().is_terminal(),
        "nobody is there to be asked: look at what is shown above, then add --yes"
    );
    let mut terminal = std::io::stderr().lock();
    write!(terminal, "{question} Type {answer} to go on: ")?;
    terminal.flush()?;
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    Ok(typed.trim() == answer)
}
