//! What C++ text declares outside of functions and classes, as far as its words tell: enough to find two sources that
//! give one name to two things. No preprocessor runs: what a condition leaves out counts, and what a macro declares does
//! not.

use std::collections::{BTreeMap, BTreeSet};

/// Name → the namespaces (`a::b`; `<anon>` without a name, empty outside of all) that `text` declares it in. A macro that
/// it leaves behind is in `#define`.
pub fn declared(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (tokens, macros) = tokens(text);
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in macros {
        found.entry(name.to_owned()).or_default().insert("#define".into());
    }
    let (mut scopes, mut statement): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    let (mut at, mut inside) = (0, 0usize);
    while let Some(&token) = tokens.get(at) {
        at += 1;
        match token {
            "(" | "[" => inside += 1,
            ")" | "]" => inside = inside.saturating_sub(1),
            // A lambda or a list among arguments.
            "{" if inside > 0 => {
                at = after_body(&tokens, at);
                continue;
            }
            "{" => {
                if let Some(scope) = opens_scope(&statement) {
                    scopes.push(scope);
                    statement.clear();
                    continue;
                }
                note(&statement, true, &scopes, &mut found);
                at = after_body(&tokens, at);
                let is_over = statement.contains(&"(") && !matches!(tokens.get(at), Some(&(";" | "," | "(")));
                let is_type = is_type(&statement);
                if is_over || is_type {
                    statement.clear();
                    // What follows the body of a type, up to `;`, are things of it.
                    statement.extend(is_type.then_some("_"));
                }
                continue;
            }
            "}" if inside == 0 => {
                scopes.pop();
                statement.clear();
                continue;
            }
            ";" if inside == 0 => {
                note(&statement, false, &scopes, &mut found);
                statement.clear();
                continue;
            }
            _ => {}
        }
        statement.push(token);
    }
    found
}

/// The place after the `}` that ends what was opened before `at`.
fn after_body(tokens: &[&str], mut at: usize) -> usize {
    let mut depth = 1;
    while depth > 0 && at < tokens.len() {
        match tokens[at] {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// The scope that a `{` after these words opens, if what stands in it is declared as if it stood outside, or in a
/// namespace.
fn opens_scope(statement: &[&str]) -> Option<String> {
    match statement {
        ["namespace", name @ ..] | ["inline", "namespace", name @ ..] => {
            Some(if name.is_empty() { "<anon>".into() } else { name.concat() })
        }
        ["extern", language] if language.starts_with('"') => Some(String::new()),
        _ => None,
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Without `template <…>` and what only says how a thing is kept.
fn plain<'a, 't>(mut statement: &'a [&'t str]) -> &'a [&'t str] {
    loop {
        match statement {
            ["template", rest @ ..] => statement = after_pair(rest, ["<", ">"]),
            ["static" | "inline" | "constexpr" | "const" | "thread_local" | "extern", rest @ ..] => statement = rest,
            _ => return statement,
        }
    }
}

fn is_type(statement: &[&str]) -> bool {
    let statement = plain(statement);
    statement.first().is_some_and(|first| ["class", "struct", "union", "enum"].contains(first))
        && !statement.contains(&"(")
}

/// Notes what a statement declares, or the words before the `{` of one (`opens`).
fn note(statement: &[&str], opens: bool, scopes: &[String], found: &mut BTreeMap<String, BTreeSet<String>>) {
    if let Some(name) = name(plain(statement), opens) {
        let scope: Vec<&str> = scopes.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
        found.entry(name.to_owned()).or_default().insert(scope.join("::"));
    }
}

/// The name that a statement declares.
fn name<'t>(statement: &[&'t str], opens: bool) -> Option<&'t str> {
    // An operator's name is its operands; another name for a namespace is told by the compiler if there are two of it.
    if statement.contains(&"operator") || matches!(statement.first(), None | Some(&"namespace")) {
        return None;
    }
    match statement {
        ["using", name, "=", ..] => return Some(name),
        ["using", ..] => return None,
        ["typedef", .., last] if is_word(last) => return Some(last),
        ["typedef", rest @ ..] => {
            return rest.windows(3).find(|w| w[0] == "(" && w[1] == "*").map(|w| w[2]);
        }
        _ => {}
    }
    if opens && is_type(statement) {
        let words = statement[1..].iter().take_while(|token| ![":", "<"].contains(*token));
        return words.copied().filter(|w| is_word(w) && !["class", "struct", "final", "alignas"].contains(w)).last();
    }
    if is_type(statement) && statement.len() < 3 {
        return None;
    }
    let (mut angle, mut at) = (0usize, 0);
    while let Some(&token) = statement.get(at) {
        match token {
            "<" => angle += 1,
            ">" => angle = angle.saturating_sub(1),
            "=" if angle == 0 => return last_name(&statement[..at]),
            "(" if angle == 0 => {
                let before = &statement[..at];
                // Nothing before it but a word: a macro, after which something may follow.
                return match before {
                    [word] if is_word(word) => name(plain(after_pair(&statement[at..], ["(", ")"])), opens),
                    [.., "::" | "~" | ".", _] => None,
                    [.., word] if is_word(word) => Some(word),
                    _ => None,
                };
            }
            _ => {}
        }
        at += 1;
    }
    last_name(statement)
}

/// What stands after the sign that ends what these words begin with, such as `)` for `(`.
fn after_pair<'a, 't>(statement: &'a [&'t str], [opens, ends]: [&str; 2]) -> &'a [&'t str] {
    let mut depth = 0usize;
    let end = statement.iter().position(|token| {
        if *token == opens {
            depth += 1;
        } else if *token == ends {
            depth = depth.saturating_sub(1);
        }
        depth == 0
    });
    &statement[end.map_or(statement.len(), |end| end + 1)..]
}

/// The name of a variable at the end of its declaration, which may be of an array.
fn last_name<'t>(statement: &[&'t str]) -> Option<&'t str> {
    let end = match statement {
        [.., "]"] => statement.iter().rposition(|token| *token == "[")?,
        _ => statement.len(),
    };
    match &statement[..end] {
        [.., "::", _] => None,
        [_, .., name] if is_word(name) => Some(name),
        _ => None,
    }
}

/// Words, numbers, texts and signs, without comments and directives; and the macros that stay defined.
fn tokens(text: &str) -> (Vec<&str>, BTreeSet<&str>) {
    let (mut tokens, mut macros) = (Vec::new(), BTreeSet::new());
    let (mut rest, mut begins_line) = (text, true);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\n' => {
                begins_line = true;
                1
            }
            _ if first.is_whitespace() => first.len_utf8(),
            '#' if begins_line => {
                let length = directive_length(rest);
                let mut words =
                    rest[1..length].split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty());
                match (words.next(), words.next()) {
                    (Some("define"), Some(name)) => drop(macros.insert(name)),
                    (Some("undef"), Some(name)) => drop(macros.remove(name)),
                    _ => {}
                }
                length
            }
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            _ => {
                let length = token_length(rest, first);
                tokens.push(&rest[..length]);
                begins_line = false;
                length
            }
        };
        rest = &rest[length..];
    }
    (tokens, macros)
}

/// Length of a directive with the lines that it goes on in.
fn directive_length(text: &str) -> usize {
    let mut length = 0;
    for line in text.split_inclusive('\n') {
        length += line.len();
        if !line.trim_end().ends_with('\\') {
            break;
        }
    }
    // The end of the line is not of it.
    length - usize::from(text[..length].ends_with('\n'))
}

/// Length of the token that `text`, with `first` at its front, begins with.
fn token_length(text: &str, first: char) -> usize {
    let run = |fits: &dyn Fn(char) -> bool| text.find(|c| !fits(c)).unwrap_or(text.len());
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    if first.is_ascii_digit() {
        return run(&|c| part_of_word(c) || c == '.' || c == '\'');
    }
    if part_of_word(first) {
        let word = run(&part_of_word);
        let is_raw = matches!(&text[..word], "R" | "u8R" | "uR" | "UR" | "LR") && text[word..].starts_with('"');
        return if is_raw { word + raw_length(&text[word..]) } else { word };
    }
    match first {
        '"' | '\'' => {
            let mut escaped = false;
            let end = text[1..].find(|c| {
                let ends = c == '\n' || !escaped && c == first;
                escaped = !escaped && c == '\\';
                ends
            });
            end.map_or(text.len(), |end| end + 2)
        }
        ':' if text.starts_with("::") => 2,
        _ => first.len_utf8(),
    }
}

/// Length of `"x(…)x"`.
fn raw_length(text: &str) -> usize {
    let Some(open) = text.find('(') else { return text.len() };
    let end = format!("){}\"", &text[1..open]);
    text[open..].find(&end).map_or(text.len(), |at| open + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let shown = |(name, scopes): (String, BTreeSet<String>)| {
            scopes.into_iter().map(|scope| format!("{scope} {name}").trim().to_owned()).collect::<Vec<_>>()
        };
        declared(text).into_iter().flat_map(shown).collect()
    }

    #[test]
    fn what_stands_outside_of_functions_and_classes_is_found_with_its_namespace() {
        let text = r##"
            #include "a.h"
            #define KEPT(x) \
                x
            #define GONE 1
            #undef GONE
            // int comment;
            /* int comment; */
            namespace a::b {
            namespace {
            static struct PyModuleDef _module = { 1, "}", '}', 1'000 };
            template <typename T, class U = std::vector<T>>
            inline T twice(T x) { int local = 2; return [&]() { return x; }(); }
            class Node final : public Base { int member; void method(); };
            struct { int x; } unnamed;
            }
            using Tensor = at::Tensor;
            typedef int (*Callback)(void*);
            typedef unsigned long Size;
            bool Node::operator==(const Node& o) const { return true; }
            Node::Node(int a) : x_{a}, y_(a) { }
            std::function<void(int)> hook(std::string name);
            const char* table[] = {"a", R"x(} ) " )x"};
            MACRO(x, { y; })
            TORCH_API void exported();
            }  // namespace a::b
            extern "C" { int plain(void); }
            extern "C" void other() {}
            namespace py = pybind11;
            class Forward;
            auto lambda = [](int x) { return x; };
            static_assert(true, "");
            DEFINE_DISPATCH(stub);
            enum class Kind : int { A, B };
            thread_local int depth{0};
        "##;
        let a = "a::b";
        let hidden = "a::b::<anon>";
        let mut expected = vec![
            format!("{a} Callback"),
            "Kind".into(),
            "#define KEPT".into(),
            format!("{hidden} Node"),
            format!("{a} Size"),
            format!("{a} Tensor"),
            format!("{hidden} _module"),
            "depth".into(),
            format!("{a} exported"),
            format!("{a} hook"),
            "lambda".into(),
            "other".into(),
            "plain".into(),
            format!("{a} table"),
            format!("{hidden} twice"),
            format!("{hidden} unnamed"),
        ];
        expected.sort();
        let mut found = names(text);
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn text_that_never_ends_is_read_to_its_end() {
        for text in
            ["int a = {", "R\"x(", "\"", "/*", "#define", "#", "template <", "}}}", "namespace {", "f((((", "'", "é"]
        {
            let _ = declared(text);
        }
    }
}
