//! How results are shown: a table for people, JSON and YAML for programs.

use std::fmt;
use std::io::{ErrorKind, Write as _};

use clap::ValueEnum;
use serde::Serialize;

/// How a result is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Prints a result. A reader that has seen enough is no error.
pub fn print<T: Serialize + fmt::Display>(result: &T, format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Table => result.to_string(),
        Format::Json => serde_json::to_string_pretty(result)? + "\n",
        Format::Yaml => serde_saphyr::to_string(result)?,
    };
    say(&text)
}

/// Prints a text as it is.
pub fn say(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Columns as wide as they must be, three spaces apart, as kubectl has them.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// A table with these words at the top of its columns.
    pub fn new(header: &[&str]) -> Self {
        Self(vec![header.iter().map(|&word| word.to_owned()).collect()])
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(
            cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).collect(),
        );
    }

    /// Whether there is nothing but the header.
    pub fn is_empty(&self) -> bool {
        self.0.len() < 2
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.0 {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let gap = width - cell.chars().count() + 3;
                line.extend(std::iter::repeat_n(' ', gap));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `1 thing`, `2 things`.
pub fn count(many: usize, one: &str, several: &str) -> String {
    format!("{many} {}", if many == 1 { one } else { several })
}

/// The first few of several names, and how many more there are.
pub fn some(names: &[String]) -> String {
    const SHOWN: usize = 3;
    match names {
        [] => "none".to_owned(),
        names if names.len() <= SHOWN + 1 => names.join(", "),
        names => format!("{} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_where_their_words_do() {
        let mut table = Table::new(&["NAME", "STATE"]);
        assert!(table.is_empty());
        table.row(["a-long-name".to_owned(), "ä".to_owned()]);
        table.row(["b".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "NAME          STATE\na-long-name   ä\nb             -\n");
    }

    #[test]
    fn many_names_are_counted() {
        let names = |many: usize| (0..many).map(|n| format!("n{n}")).collect::<Vec<_>>();
        assert_eq!(some(&names(4)), "n0, n1, n2, n3");
        assert_eq!(some(&names(5)), "n0, n1, n2 and 2 more");
        assert_eq!(
            (count(1, "node", "nodes"), count(2, "node", "nodes")),
            ("1 node".into(), "2 nodes".into())
        );
    }
}
