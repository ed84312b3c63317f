//! Names of C++ symbols as people write them.

/// `name` as a declaration where it is a mangled C++ name that can be read, else as it is. Long ones are cut.
pub fn demangle(name: &str) -> String {
    const MOST: usize = 160;
    let readable = itanium(name).or_else(|| msvc(name)).unwrap_or_else(|| name.to_owned());
    // The two names of std::string differ in what libstdc++ they are from, which the reader is told otherwise.
    let readable = readable
        .replace("std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >", "std::string")
        .replace("std::basic_string<char, std::char_traits<char>, std::allocator<char> >", "std::string");
    match readable.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &readable[..end]),
        None => readable,
    }
}

/// Text of bounded length: a name of a hundred letters that refers back to itself again and again stands for one of
/// gigabytes.
#[derive(Default)]
struct Bounded(String);

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.push_str(text);
        if self.0.len() > 1 << 14 { Err(std::fmt::Error) } else { Ok(()) }
    }
}

fn itanium(name: &str) -> Option<String> {
    if !name.starts_with("_Z") || name.len() > 4096 {
        return None;
    }
    let mut out = Bounded::default();
    let symbol = cpp_demangle::Symbol::new(name).ok()?;
    // What was written before it became too long is told.
    let whole = symbol.structured_demangle(&mut out, &cpp_demangle::DemangleOptions::new());
    (whole.is_ok() || out.0.len() > 1 << 14).then_some(out.0)
}

fn msvc(name: &str) -> Option<String> {
    use msvc_demangler::DemangleFlags as F;
    if !name.starts_with('?') || name.len() > 4096 {
        return None;
    }
    msvc_demangler::demangle(name, F::NO_ACCESS_SPECIFIERS | F::NO_MEMBER_TYPE | F::NO_MS_KEYWORDS).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_compilers_are_read_and_others_stay() {
        assert_eq!(demangle("_ZN3c106detail3fooERKSs"), "c10::detail::foo(std::string const&)");
        assert_eq!(
            demangle("_ZN3c103fooENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"),
            "c10::foo(std::string)"
        );
        assert!(demangle("?foo@c10@@YAXH@Z").contains("c10::foo(int)"));
        assert_eq!(demangle("aoti_torch_empty"), "aoti_torch_empty");
        assert_eq!(demangle("_Znonsense"), "_Znonsense");
        assert!(demangle(&"x".repeat(500)).chars().count() < 200);
    }

    #[test]
    fn a_name_that_refers_back_to_itself_does_not_keep_us_busy() {
        // A pair of pairs of pairs: each doubles what stands before it.
        let digits: Vec<char> = ('0'..='9').chain('A'..='Z').collect();
        let pairs: String = digits.iter().map(|d| format!("St4pairIS{d}_S{d}_E")).collect();
        let name = format!("_Z1fSt4pairIiiE{pairs}");
        assert!(demangle(&name).chars().count() < 200);
    }

    proptest::proptest! {
        #[test]
        fn no_name_makes_it_panic(name in "(_Z|\\?)[A-Za-z0-9_@?$]{0,60}") {
            let _ = demangle(&name);
        }
    }
}
