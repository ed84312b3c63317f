//! Which libuv: what its function `uv_version` returns, read from its code. The function is one
//! constant (`UV_VERSION_HEX`, docs of libuv, "Version-checking macros and functions").

/// The version in the code of `uv_version`, as `1.50.0`; `None` where it does not look like a
/// function that returns a constant.
pub fn version_in_code(code: &[u8], aarch64: bool) -> Option<String> {
    let hex = if aarch64 { aarch64_constant(code)? } else { x86_64_constant(code)? };
    let (major, minor, patch) = (hex >> 16, hex >> 8 & 0xff, hex & 0xff);
    // There is no libuv 0 in use and no libuv 2.
    (major == 1).then(|| format!("{major}.{minor}.{patch}"))
}

/// `mov eax, imm32`, after what compilers put at the beginning of functions.
fn x86_64_constant(code: &[u8]) -> Option<u32> {
    const PROLOGUES: &[&[u8]] = &[
        &[0xf3, 0x0f, 0x1e, 0xfa], // endbr64
        &[0x55],                   // push rbp
        &[0x48, 0x89, 0xe5],       // mov rbp, rsp
    ];
    let mut rest = code;
    for prologue in PROLOGUES {
        rest = rest.strip_prefix(*prologue).unwrap_or(rest);
    }
    match rest {
        [0xb8, a, b, c, d, ..] => Some(u32::from_le_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// `movz w0, #lo` and `movk w0, #hi, lsl #16`, in either order, before `ret`.
fn aarch64_constant(code: &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for word in code.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])) {
        let immediate = word >> 5 & 0xffff;
        match word & 0xffe0_001f {
            0x5280_0000 => value = immediate,
            0x52a0_0000 => value = immediate << 16,
            0x7280_0000 => value |= immediate,
            0x72a0_0000 => value |= immediate << 16,
            _ if word == 0xd65f_03c0 => return (value != 0).then_some(value), // ret
            _ if word == 0xd503_245f => {}                                    // bti c
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constant_is_read_with_and_without_a_prologue() {
        let plain = [0xb8, 0x00, 0x32, 0x01, 0x00, 0xc3];
        assert_eq!(version_in_code(&plain, false).as_deref(), Some("1.50.0"));
        let guarded = [&[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5][..], &plain].concat();
        assert_eq!(version_in_code(&guarded, false).as_deref(), Some("1.50.0"));
        // mov w0, #0x2901; movk w0, #1, lsl #16; ret
        let arm = [0x20, 0x20, 0x85, 0x52, 0x20, 0x00, 0xa0, 0x72, 0xc0, 0x03, 0x5f, 0xd6];
        assert_eq!(version_in_code(&arm, true).as_deref(), Some("1.41.1"));
        assert_eq!(version_in_code(&[0xc3], false), None);
        assert_eq!(version_in_code(&[], true), None);
    }
}
