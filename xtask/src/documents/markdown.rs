//! What a Markdown file has in it that can be checked: anchors, links, pictures and blocks of code. Markdown as this repository writes
//! it and a forge shows it; no more.

use std::collections::{BTreeMap, BTreeSet};

/// One file, taken apart.
#[derive(Debug, Default)]
pub struct Document {
    /// What `#...` may name: headings as forges call them, and `<a id="...">`.
    pub anchors: BTreeSet<String>,
    /// Everything that leads somewhere.
    pub links: Vec<Link>,
    /// Fenced blocks of code.
    pub blocks: Vec<Block>,
}

/// A link or a picture.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    /// Line of the file.
    pub line: usize,
    /// Where it leads.
    pub target: String,
    /// A picture's text alternative; a link has none.
    pub alternative: Option<String>,
}

/// A fenced block of code.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Line of its first line of code.
    pub line: usize,
    /// What stands behind the fence, in lower case.
    pub language: String,
    /// The code.
    pub text: String,
}

impl Document {
    /// Takes a file apart.
    pub fn read(text: &str) -> Self {
        let mut document = Self::default();
        let prose = document.take_blocks(text);
        document.take_headings(&prose);
        let prose = without_code_spans(&prose);
        document.take_links(&prose);
        document.take_html(&prose);
        document
    }

    // The text without its blocks; lines keep their numbers.
    fn take_blocks(&mut self, text: &str) -> String {
        let mut prose = String::new();
        let mut open: Option<(String, Block)> = None;
        for (number, line) in text.lines().enumerate() {
            let trimmed = line.trim_start();
            if let Some((fence, block)) = &mut open {
                if trimmed.trim_end() == fence {
                    self.blocks.extend(open.take().map(|(_, block)| block));
                } else {
                    block.text += line;
                    block.text += "\n";
                }
            } else if let Some(fence) = fence(trimmed) {
                let language = trimmed[fence.len()..].trim().to_lowercase();
                open = Some((fence, Block { line: number + 2, language, text: String::new() }));
            } else {
                prose += line;
            }
            prose += "\n";
        }
        prose
    }

    fn take_headings(&mut self, prose: &str) {
        let mut taken: BTreeMap<String, usize> = BTreeMap::new();
        for line in prose.lines() {
            let depth = line.bytes().take_while(|byte| *byte == b'#').count();
            if (1..=6).contains(&depth)
                && let Some(title) = line[depth..].strip_prefix(' ')
            {
                let anchor = anchor(title);
                let before = taken.entry(anchor.clone()).or_default();
                self.anchors.insert(if *before == 0 { anchor } else { format!("{anchor}-{before}") });
                *before += 1;
            }
        }
    }

    fn take_links(&mut self, prose: &str) {
        for (at, _) in prose.match_indices("](") {
            let Some(target) = target(&prose[at + 2..]) else { continue };
            let Some(start) = opening_bracket(&prose[..at]) else { continue };
            let is_picture = prose[..start].ends_with('!');
            let alternative = is_picture.then(|| prose[start + 1..at].to_owned());
            self.links.push(Link { line: line_of(prose, at), target, alternative });
        }
        for (number, line) in prose.lines().enumerate() {
            if let Some((_, target)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
                self.links.push(Link {
                    line: number + 1,
                    target: target.trim().to_owned(),
                    alternative: None,
                });
            }
        }
    }

    fn take_html(&mut self, prose: &str) {
        for (at, _) in prose.match_indices('<') {
            let Some(tag) = prose[at..].split('>').next() else { continue };
            let attribute = |name: &str| {
                let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
                rest.split('"').next().map(str::to_owned)
            };
            for name in ["href", "src", "srcset"] {
                let is_picture = tag.starts_with("<img ") && name == "src";
                let alternative = is_picture.then(|| attribute("alt").unwrap_or_default());
                self.links.extend(attribute(name).map(|target| Link {
                    line: line_of(prose, at),
                    target,
                    alternative,
                }));
            }
            self.anchors.extend(attribute("id").or_else(|| attribute("name")));
        }
    }
}

fn fence(line: &str) -> Option<String> {
    ["`", "~"].into_iter().find_map(|mark| {
        let length = line.len() - line.trim_start_matches(mark).len();
        (length >= 3 && !line[length..].contains(mark)).then(|| mark.repeat(length))
    })
}

// What forges make of a title: letters, digits, `_` and `-` in lower case, spaces as `-`.
fn anchor(title: &str) -> String {
    let mut words = String::new();
    let mut rest = title.trim();
    // A link counts with its words alone.
    while let Some((before, after)) = rest.split_once("](") {
        words += before;
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    words += rest;
    let kept = words.to_lowercase();
    let kept = kept.chars().filter(|sign| sign.is_alphanumeric() || matches!(sign, ' ' | '-' | '_'));
    kept.map(|sign| if sign == ' ' { '-' } else { sign }).collect()
}

// Code spans are blanked; a run of backticks without its like in the same paragraph is text.
fn without_code_spans(prose: &str) -> String {
    let mut kept = String::new();
    let mut rest = prose;
    while let Some(start) = rest.find('`') {
        let length = rest[start..].len() - rest[start..].trim_start_matches('`').len();
        let (before, span) = rest.split_at(start + length);
        kept += &before[..start];
        let paragraph = span.split("\n\n").next().unwrap_or_default();
        match closing_run(paragraph, length) {
            Some(end) => {
                kept.extend(span[..end].chars().filter(|sign| *sign == '\n'));
                rest = &span[end + length..];
            }
            None => rest = span,
        }
    }
    kept + rest
}

fn closing_run(paragraph: &str, length: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = paragraph[at..].find('`') {
        let start = at + found;
        let run = paragraph[start..].len() - paragraph[start..].trim_start_matches('`').len();
        if run == length {
            return Some(start);
        }
        at = start + run;
    }
    None
}

// What stands between `](` and its `)`, without a title.
fn target(rest: &str) -> Option<String> {
    if let Some(rest) = rest.strip_prefix('<') {
        return rest.split_once('>').map(|(target, _)| target.to_owned());
    }
    let mut depth = 1;
    let end = rest.find(|sign: char| {
        match sign {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0 || sign.is_whitespace()
    })?;
    Some(rest[..end].to_owned())
}

fn opening_bracket(before: &str) -> Option<usize> {
    let mut depth = 1;
    before.rfind(|sign: char| {
        match sign {
            ']' => depth += 1,
            '[' => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(line: usize, target: &str) -> Link {
        Link { line, target: target.to_owned(), alternative: None }
    }

    #[test]
    fn links_and_pictures_are_found_and_code_is_not_prose() {
        let text = "See [a](a.md#b) and `[no](no.md)`,\n[two\nlines](c.md \"title\"), ![A chart](d.svg), [e](e_(f).md).\n\
                    ```yaml\na: [b](no.md)\n```\n[x]: https://example.com\n<img src=\"g.svg\" alt=\"\"> <a id=\"h\"></a>\n";
        let document = Document::read(text);
        let picture = |line, target: &str, words: &str| Link {
            alternative: Some(words.to_owned()),
            ..link(line, target)
        };
        assert_eq!(
            document.links,
            [
                link(1, "a.md#b"),
                link(3, "c.md"),
                picture(3, "d.svg", "A chart"),
                link(3, "e_(f).md"),
                link(7, "https://example.com"),
                picture(8, "g.svg", ""),
            ]
        );
        let block = Block { line: 5, language: "yaml".to_owned(), text: "a: [b](no.md)\n".to_owned() };
        assert_eq!(document.blocks, [block]);
        assert!(document.anchors.contains("h"));
    }

    #[test]
    fn headings_are_called_as_forges_call_them() {
        let text = "# One `Two`: three, four\n## Again\n## Again\n### [Linked](x.md) words_1\n#no\n```\n# code\n```\n";
        let anchors: Vec<_> = Document::read(text).anchors.into_iter().collect();
        assert_eq!(anchors, ["again", "again-1", "linked-words_1", "one-two-three-four"]);
    }

    #[test]
    fn a_lonely_backtick_hides_no_link() {
        assert_eq!(Document::read("a ` b\n\n[c](d.md) `e`\n").links, [link(3, "d.md")]);
    }

    #[test]
    fn a_fence_ends_with_its_like() {
        let blocks = Document::read("````md\n```yaml\na: 1\n```\n````\n   ```sh\n   b\n   ```\n").blocks;
        let texts: Vec<_> =
            blocks.iter().map(|block| (block.language.as_str(), block.text.as_str())).collect();
        assert_eq!(texts, [("md", "```yaml\na: 1\n```\n"), ("sh", "   b\n")]);
    }
}
