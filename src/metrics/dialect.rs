//! Expressions written for Python's `re`, said again for the `regex` crate.
//!
//! Users write metric expressions in Python's syntax. Most of it reads the same here; some of it reads *differently* (`a*+`,
//! `\<`, `[a&&b]`, `{` in the middle of JSON), and some has no linear-time match at all (look-around, back-references).
//!
//! Invariant: what [`translate`] gives matches what Python would match, or it gives an error that names the construct, its
//! place and what to write instead. It never lets a different meaning through. Whether the result is well formed is for
//! [`compile`] to find, which says the place in the user's own text.
//!
//! Differences that stay, each too small to refuse an expression for: `\s` leaves out the four separators U+001C to U+001F,
//! `\w` takes in combining marks, ignoring case knows Unicode's simple folding only, and where an expression as a whole
//! matches nothing at a place (as `(.*?)` alone does), Python tries once more for something at the same place.

use std::fmt::Write;

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::is_meta_character;

/// Bytes that a compiled expression may take.
const SIZE_LIMIT: usize = 1 << 20;
/// Groups and classes within each other.
const NEST_LIMIT: u32 = 50;

/// An expression in the syntax of the `regex` crate, and where each of its bytes came from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Translated {
    pattern: String,
    /// For each byte of `pattern` the index of the user's character.
    origins: Vec<usize>,
}

/// Compiles an expression in Python's syntax; on failure says why, where, and what to write instead.
pub(super) fn compile(expression: &str) -> Result<Regex, String> {
    let translated = translate(expression)?;
    if let Err(error) = ParserBuilder::new().nest_limit(NEST_LIMIT).build().parse(&translated.pattern) {
        return Err(translated.complaint(error.kind(), error.span().start.offset));
    }
    let regex = RegexBuilder::new(&translated.pattern)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(SIZE_LIMIT)
        .nest_limit(NEST_LIMIT)
        .build()
        .map_err(|error| complaint_of_compiling(&error))?;
    if regex.captures_len() < 2 {
        return Err("it has no capture group. Put the part that is the value in parentheses, \
                    such as loss=([0-9.]+)"
            .to_owned());
    }
    Ok(regex)
}

fn complaint_of_compiling(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => {
            "it takes more than 1 MiB when compiled. Use smaller counts in {…}, or [0-9] and [A-Za-z0-9_] for \\d and \\w"
                .to_owned()
        }
        other => {
            // The crate's text is several lines with a drawing; the last one is the reason.
            let text = other.to_string();
            let reason = text.lines().last().unwrap_or(&text).trim_start_matches("error: ");
            format!("{reason}. Change the expression")
        }
    }
}

impl Translated {
    fn complaint(&self, kind: &regex_syntax::ast::ErrorKind, offset: usize) -> String {
        let place = match self.origins.get(offset) {
            Some(index) => format!("at character {}", index + 1),
            None => "at its end".to_owned(),
        };
        format!("{kind} {place}. Correct it there, or put \\ before a character that is meant as itself")
    }
}

fn translate(expression: &str) -> Result<Translated, String> {
    let mut translator =
        Translator { chars: expression.chars().collect(), at: 0, start: 0, out: Translated::default() };
    while translator.at < translator.chars.len() {
        translator.start = translator.at;
        translator.element()?;
    }
    Ok(translator.out)
}

/// What a class is made of.
enum Member {
    /// One character, which may begin or end a range.
    One(String),
    /// A set, such as `\d`.
    Set(String),
}

struct Translator {
    chars: Vec<char>,
    /// The next character to read.
    at: usize,
    /// Where the element being read began.
    start: usize,
    out: Translated,
}

impl Translator {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek(0);
        self.at += 1;
        c
    }

    fn take_if(&mut self, c: char) -> bool {
        let taken = self.peek(0) == Some(c);
        self.at += usize::from(taken);
        taken
    }

    fn emit(&mut self, text: &str) {
        self.out.pattern.push_str(text);
        self.out.origins.resize(self.out.pattern.len(), self.start);
    }

    /// An error at the element being read.
    fn refuse<T>(&self, what: &str, instead: &str) -> Result<T, String> {
        let end = self.at.min(self.chars.len()).max(self.start + 1).min(self.chars.len());
        let text: String = self.chars[self.start..end].iter().collect();
        Err(format!("{what} ({text} at character {}) can't be used. {instead}", self.start + 1))
    }

    fn element(&mut self) -> Result<(), String> {
        match self.peek(0) {
            Some('\\') => self.escape(),
            Some('[') => self.class(),
            Some('(') => self.group(),
            Some('*' | '+' | '?') => {
                let text = self.next().map(String::from).unwrap_or_default();
                self.quantifier(&text)
            }
            Some('{') => {
                if let Some(text) = self.counts() {
                    return self.quantifier(&text);
                }
                self.at += 1;
                self.emit(r"\{");
                Ok(())
            }
            Some(c @ ('}' | ']')) => {
                self.at += 1;
                self.emit(&literal(c));
                Ok(())
            }
            Some(c) => {
                self.at += 1;
                self.emit(c.encode_utf8(&mut [0; 4]));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// `{m}`, `{m,}`, `{,n}`, `{m,n}`; anything else that begins with a brace is text, as JSON in a log is.
    fn counts(&mut self) -> Option<String> {
        let rest = &self.chars[self.at + 1..];
        let close = rest.iter().position(|c| *c == '}')?;
        let inside: String = rest[..close].iter().collect();
        let is_count = |text: &str| text.chars().all(|c| c.is_ascii_digit());
        let text = match inside.split_once(',') {
            Some((low, high)) if is_count(low) && is_count(high) => {
                format!("{{{},{high}}}", if low.is_empty() { "0" } else { low })
            }
            None if !inside.is_empty() && is_count(&inside) => format!("{{{inside}}}"),
            _ => return None,
        };
        self.at += close + 2;
        Some(text)
    }

    fn quantifier(&mut self, text: &str) -> Result<(), String> {
        if self.peek(0) == Some('+') {
            self.at += 1;
            return self.refuse("a possessive quantifier", "Delete its last +");
        }
        self.emit(text);
        if self.take_if('?') {
            self.emit("?");
        }
        Ok(())
    }

    fn group(&mut self) -> Result<(), String> {
        self.at += 1;
        if !self.take_if('?') {
            self.emit("(");
            return Ok(());
        }
        let no_look = "Leave it out: only the first group is read as the value, so the text around it can simply be \
                       written before and after the group";
        match self.next() {
            Some(':') => {
                self.emit("(?:");
                Ok(())
            }
            Some('=') => self.refuse("look-ahead", no_look),
            Some('!') => self.refuse("negative look-ahead", no_look),
            Some('<') => match self.peek(0) {
                Some('=') => {
                    self.at += 1;
                    self.refuse("look-behind", no_look)
                }
                Some('!') => {
                    self.at += 1;
                    self.refuse("negative look-behind", no_look)
                }
                _ => {
                    self.emit("(?P<");
                    Ok(())
                }
            },
            Some('>') => self.refuse("an atomic group", "Write (?: in its place"),
            Some('(') => self.refuse("a conditional group", "Write the cases out as alternatives: (?:…|…)"),
            Some('#') => {
                // A comment matches nothing and means nothing.
                while self.next().is_some_and(|c| c != ')') {}
                Ok(())
            }
            Some('P') => match self.next() {
                Some('<') => {
                    self.emit("(?P<");
                    Ok(())
                }
                Some('=') => self.refuse("a back-reference", "Write the text or the expression again"),
                _ => self.refuse("this kind of group", "Named groups are written (?P<name>…)"),
            },
            _ => {
                self.at -= 1;
                self.flags()
            }
        }
    }

    fn flags(&mut self) -> Result<(), String> {
        let from = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphabetic() || c == '-') {
            self.at += 1;
        }
        let flags: String = self.chars[from..self.at].iter().collect();
        let end = self.next();
        if !matches!(end, Some(':' | ')')) || flags.is_empty() {
            return self.refuse("this kind of group", "A group that is not read as the value is written (?:…)");
        }
        for flag in flags.chars() {
            match flag {
                'i' | 'm' | 's' | '-' => {}
                'u' if !flags.contains('-') => {}
                'x' => return self.refuse("the flag x", "Delete it, and the blanks and comments with it"),
                'a' => return self.refuse("the flag a", "Delete it, and write [0-9] for \\d, [A-Za-z0-9_] for \\w"),
                _ => return self.refuse("this flag", "The flags are i, m, s and u"),
            }
        }
        let at_start = self.out.pattern.is_empty() || self.out.pattern.ends_with(')') && self.only_flags();
        if end == Some(')') && !at_start {
            return self.refuse("a flag in the middle", "Write it at the start, or as (?i:…) around what it is for");
        }
        let end = if end == Some(':') { ":" } else { ")" };
        self.emit(&format!("(?{flags}{end}"));
        Ok(())
    }

    /// Whether all that was emitted so far is groups like `(?i)`.
    fn only_flags(&self) -> bool {
        let flags_alone = |part: &str| part.strip_prefix("(?").is_some_and(|f| f.chars().all(char::is_alphabetic));
        self.out.pattern.split_terminator(')').all(flags_alone)
    }

    fn escape(&mut self) -> Result<(), String> {
        self.at += 1;
        let Some(c) = self.next() else { return self.lone_backslash() };
        let text = match c {
            '1'..='9' if !self.is_octal() => {
                while self.peek(0).is_some_and(|c| c.is_ascii_digit()) && self.at < self.start + 3 {
                    self.at += 1;
                }
                return self.refuse("a back-reference", "Write the text or the expression again");
            }
            '0'..='9' => self.octal()?,
            'Z' => return self.refuse("\\Z", "Write $, which means the same here: lines are matched one by one"),
            'A' | 'z' => format!("\\{c}"),
            // A group keeps a brace that follows from being read as part of the escape.
            'b' | 'B' => format!("(?:\\{c})"),
            other => match self.escaped(other)? {
                Member::One(text) | Member::Set(text) => text,
            },
        };
        self.emit(&text);
        Ok(())
    }

    fn lone_backslash<T>(&self) -> Result<T, String> {
        self.refuse("a backslash at the end", "Delete it, or write \\\\ for a backslash")
    }

    /// `\ddd`, three octal digits, is a character and no back-reference. The first digit was read.
    fn is_octal(&self) -> bool {
        self.chars[self.at - 1..].iter().take(3).filter(|c| matches!(c, '0'..='7')).count() == 3
    }

    fn octal(&mut self) -> Result<String, String> {
        let mut value = 0;
        self.at -= 1;
        for _ in 0..3 {
            let Some(digit) = self.peek(0).filter(|c| *c < '8').and_then(|c| c.to_digit(8)) else { break };
            value = value * 8 + digit;
            self.at += 1;
        }
        if value > 0o377 {
            return self.refuse("an octal escape above \\377", "Write \\uXXXX");
        }
        Ok(format!("\\x{{{value:X}}}"))
    }

    /// What means the same inside and outside of classes.
    fn escaped(&mut self, c: char) -> Result<Member, String> {
        Ok(match c {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => Member::Set(format!("\\{c}")),
            'a' | 'f' | 'n' | 'r' | 't' | 'v' => Member::One(format!("\\{c}")),
            'x' => Member::One(self.hex(2)?),
            'u' => Member::One(self.hex(4)?),
            'U' => Member::One(self.hex(8)?),
            'N' => return self.refuse("a character by its name", "Write the character itself, or \\uXXXX"),
            'p' | 'P' => return self.refuse("a Unicode property", "Write \\w, \\d, or the characters in [ ]"),
            c if c.is_ascii_alphabetic() => {
                return self.refuse("this escape", "Delete the backslash if the letter is meant");
            }
            c => Member::One(literal(c)),
        })
    }

    fn hex(&mut self, digits: usize) -> Result<String, String> {
        let mut value = String::new();
        while value.len() < digits {
            match self.next() {
                Some(c) if c.is_ascii_hexdigit() => value.push(c),
                _ => return self.refuse("an unfinished escape", &format!("It takes {digits} hexadecimal digits")),
            }
        }
        Ok(format!("\\x{{{value}}}"))
    }

    /// A class as Python reads it: no nested classes, no set operations.
    fn class(&mut self) -> Result<(), String> {
        self.at += 1;
        let mut text = String::from("[");
        if self.take_if('^') {
            text.push('^');
        }
        let mut first = true;
        loop {
            if !first && self.take_if(']') {
                break;
            }
            first = false;
            let low = self.member()?;
            let is_range = self.peek(0) == Some('-') && !matches!(self.peek(1), None | Some(']'));
            match low {
                Member::One(low) if is_range => {
                    self.at += 1;
                    let Member::One(high) = self.member()? else {
                        return self.refuse("a range that ends in a set", "Put the - last in the class, or write \\-");
                    };
                    let _ = write!(text, "{low}-{high}");
                }
                Member::Set(_) if is_range => {
                    self.at += 1;
                    return self.refuse("a range that begins with a set", "Put the - last in the class, or write \\-");
                }
                Member::One(one) | Member::Set(one) => text.push_str(&one),
            }
        }
        text.push(']');
        self.emit(&text);
        Ok(())
    }

    fn member(&mut self) -> Result<Member, String> {
        match self.next() {
            None => {
                self.at = self.start + 1;
                self.refuse("a class without its end", "Add the ] that closes it, or write \\[ for the character")
            }
            Some('[') if self.peek(0) == Some(':') && self.chars[self.at..].windows(2).any(|w| w == [':', ']']) => {
                self.at += 1;
                self.refuse("a POSIX class", "Write its characters, such as 0-9 or A-Za-z, or \\[ for the character [")
            }
            Some('\\') => match self.next() {
                None => self.lone_backslash(),
                Some('b') => Ok(Member::One(r"\x08".to_owned())),
                Some('0'..='7') => self.octal().map(Member::One),
                Some(c) => self.escaped(c),
            },
            Some(c) => Ok(Member::One(literal(c))),
        }
    }
}

/// A character that stands for itself, in or out of a class.
fn literal(c: char) -> String {
    if is_meta_character(c) { format!("\\{c}") } else { c.to_string() }
}

#[cfg(test)]
mod tests {
    use super::{compile, translate};

    fn first_group<'a>(expression: &str, text: &'a str) -> Option<&'a str> {
        compile(expression).unwrap().captures(text).and_then(|c| c.get(1)).map(|m| m.as_str())
    }

    fn refusal(expression: &str) -> String {
        compile(expression).unwrap_err()
    }

    #[test]
    fn everyday_expressions_match_as_in_python() {
        for (expression, text, group) in [
            (r"validation-auc:([0-9\.]+)", "[3]#011validation-auc:0.91", "0.91"),
            (
                r".*\[[0-9]+\].*#011validation-auc:([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?).*",
                "[3]#011train-auc:1#011validation-auc:9.1e-1",
                "9.1e-1",
            ),
            (r"loss=(\S+);", "step 1 loss=0.5; acc=1;", "0.5"),
            (r"Test accuracy: (.*?);", "Test accuracy: 0.9; x;", "0.9"),
            (r"(?P<value>\d+)%", "at 90%", "90"),
            (r"(?i)LOSS\s*[:=]\s*(\d+)", "loss : 7", "7"),
        ] {
            assert_eq!(first_group(expression, text), Some(group), "{expression}");
        }
    }

    #[test]
    fn what_reads_otherwise_in_rust_keeps_its_python_meaning() {
        for (expression, text, group) in [
            // Braces that are no count are text; {,n} is a count.
            (r#"{"loss": ([0-9.]+)}"#, r#"{"loss": 0.25}"#, "0.25"),
            (r"x{a}{,2}=(\d)", "x{a}}=1", "1"),
            (r"{}=(\d)", "{}=1", "1"),
            (r"a{,2}(b)", "aab", "b"),
            // No nested classes and no set operations.
            (r"[[](\d)", "[4", "4"),
            (r"[a&&b]=(\d)", "&=5", "5"),
            (r"[a~~z]=(\d)", "~=5", "5"),
            (r"[]x]=(\d)", "]=6", "6"),
            (r"[^]x]=(\d)", "y=6", "6"),
            (r"[!--]=(\d)", "+=6", "6"),
            (r"[a-]=(\d)", "-=6", "6"),
            (r"[\w.-]+=(\d)", "a-b.c=6", "6"),
            // Escapes.
            (r"\<a\>(\d)", "<a>1", "1"),
            (r"\#\-\:\=\@\ \_\/(\d)", "#-:=@ _/2", "2"),
            (r"\043(\d)", "#3", "3"),
            (r"[\b\0](\d)", "\u{8}3", "3"),
            (r"\x23\u0023\U00000023(\d)", "###3", "3"),
            (r"a\b(?:) (\d)", "a 3", "3"),
            // Comments.
            (r"a(?#the value)=(\d)", "a=8", "8"),
            (r"(?i)(?s)A.(\d)", "a\n1", "1"),
        ] {
            assert_eq!(first_group(expression, text), Some(group), "{expression}");
        }
        assert_eq!(first_group(r"a{,2}=(\d)", "a{,2}=1"), Some("1"));
        assert_eq!(first_group(r"^a{,2}=(\d)", "a{,2}=1"), None);
        assert_eq!(first_group(r"[^]x]=(\d)", "]=6"), None);
    }

    #[test]
    fn what_has_no_linear_match_is_refused_with_its_name_and_place() {
        for (expression, construct, place) in [
            (r"loss=(\d+)(?=;)", "look-ahead", 11),
            (r"(\d+)(?!;)", "negative look-ahead", 6),
            (r"(?<=loss=)(\d+)", "look-behind", 1),
            (r"é(?<!x)(\d+)", "negative look-behind", 2),
            (r"(\d)=\1", "a back-reference", 6),
            (r"(?P<a>\d)(?P=a)", "a back-reference", 10),
            (r"(\d)?(?(1)a|b)", "a conditional group", 6),
            (r"(?>\d)(\d)", "an atomic group", 1),
            (r"(\d*+)", "a possessive quantifier", 4),
            (r"(\d{2}+)", "a possessive quantifier", 4),
            (r"(\d)\Z", r"\Z", 5),
            (r"(?x) (\d)", "the flag x", 1),
            (r"(?a)(\d)", "the flag a", 1),
            (r"(\d)(?i)x", "a flag in the middle", 5),
            (r"\N{DIGIT ONE}(\d)", "a character by its name", 1),
            (r"\p{L}(\d)", "a Unicode property", 1),
            (r"\Qa\E(\d)", "this escape", 1),
            (r"[[:digit:]](\d)", "a POSIX class", 1),
            (r"(\d)[abc", "a class without its end", 5),
            (r"(\d)\", "a backslash at the end", 5),
            (r"\x4(\d)", "an unfinished escape", 1),
            (r"[a-\d](\d)", "a range that ends in a set", 1),
        ] {
            let why = refusal(expression);
            assert!(why.starts_with(construct), "{expression}: {why}");
            assert!(why.contains(&format!("at character {place})")), "{expression}: {why}");
            assert!(why.split(") can't be used. ").nth(1).is_some_and(|s| s.len() > 10), "{expression}: {why}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place_in_the_users_text() {
        assert_eq!(
            refusal(r"{loss}=(\d+"),
            "unclosed group at character 8. Correct it there, or put \\ before a character that is meant as itself"
        );
        assert!(refusal(r"*(\d)").starts_with("repetition operator missing expression at character 1"));
        assert!(refusal(r"(\d))").contains("at character 5"));
        assert!(refusal(r"([z-a])").starts_with("invalid character class range"));
    }

    #[test]
    fn an_expression_needs_a_group_and_a_bounded_size() {
        assert!(refusal("loss=[0-9.]+").starts_with("it has no capture group"));
        assert!(refusal("(?:loss)").starts_with("it has no capture group"));
        assert!(refusal(r"((\w{1,50}){1,50}){1,50}").starts_with("it takes more than 1 MiB"));
        let deep = format!("{}1{}", "(".repeat(200), ")".repeat(200));
        assert!(refusal(&deep).contains("nest"), "{}", refusal(&deep));
    }

    #[test]
    fn places_point_into_the_users_text() {
        let translated = translate("{a(?#c)[[]b").unwrap();
        assert_eq!(translated.pattern, r"\{a[\[]b");
        assert_eq!(translated.origins, [0, 0, 1, 7, 7, 7, 7, 10]);
    }
}
