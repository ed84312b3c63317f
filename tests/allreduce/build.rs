//! Builds the shim over c10d against the libtorch that tch is built against, and checks first that
//! the two fit.
//!
//! | variable | means |
//! |---|---|
//! | `LIBTORCH` | the libtorch folder: `include`, `lib` |
//! | `LIBTORCH_CXX11_ABI` | 0 where that libtorch has the old ABI of libstdc++ (1 if not set) |
//! | `GLOO_SOURCE` | Gloo's source tree: torch's headers include Gloo's, and no wheel carries them |
//! | `CUDA_INCLUDES` | folders with the headers of CUDA and NCCL, for the NCCL backend (a path list) |

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    for name in ["LIBTORCH", "LIBTORCH_CXX11_ABI", "GLOO_SOURCE", "CUDA_INCLUDES"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=shim");
    let libtorch =
        PathBuf::from(env::var_os("LIBTORCH").unwrap_or_else(|| {
            fail("LIBTORCH is not set: it names the libtorch folder (include, lib) to be measured")
        }));
    check_version(&libtorch);
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    let include = libtorch.join("include");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        .file("shim/c10d.cpp")
        .include(include.join("torch/csrc/api/include"))
        .include(&include)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .define("GLOG_USE_GLOG_EXPORT", None);
    if let Some(source) = env::var_os("GLOO_SOURCE").filter(|s| !s.is_empty()) {
        let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("gloo");
        write_gloo_config(Path::new(&source), &out);
        build.include(&out).include(source).define("USE_C10D_GLOO", None);
    }
    let cuda: Vec<PathBuf> = env::var_os("CUDA_INCLUDES").map(|l| env::split_paths(&l).collect()).unwrap_or_default();
    // `crt/` and `nv/` are in packages of the compiler, which torch does not depend on.
    let nccl = ["nccl.h", "cuda_runtime_api.h", "crt/host_config.h", "nv/target"]
        .iter()
        .all(|header| cuda.iter().any(|d| d.join(header).is_file()));
    if nccl {
        build.includes(&cuda).define("USE_C10D_NCCL", None).define("USE_CUDA", None);
    }
    build.compile("c10dshim");
    // What the shim calls lies in torch_cpu and c10, and in torch_cuda for NCCL; the linker drops what
    // nothing before it on the line asks for.
    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    for library in ["torch_cpu", "c10"] {
        println!("cargo:rustc-link-lib={library}");
    }
    if libtorch.join("lib/libtorch_cuda.so").is_file() {
        // CUDA registers its operators when it is loaded: nobody names a symbol of it.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch_cuda");
        println!("cargo:rustc-link-arg=-lc10_cuda");
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libtorch.join("lib").display());
}

/// The torch versions that versions of tch are written for (`TORCH_VERSION` in torch-sys' build.rs).
const FITTING: &[(&str, &str)] = &[
    ("2.4", "0.17"),
    ("2.5", "0.18"),
    ("2.6", "0.19"),
    ("2.7", "0.20"),
    ("2.9", "0.22"),
    ("2.11", "0.24"),
    ("2.13", "0.26"),
];

fn check_version(libtorch: &Path) {
    // The older one includes the newer one, where there are both.
    let headers = ["include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"];
    let header = headers.iter().map(|name| libtorch.join(name)).find(|path| path.exists());
    let header = header.unwrap_or_else(|| fail(&format!("{} has no torch/version.h", libtorch.display())));
    println!("cargo:rerun-if-changed={}", header.display());
    let text =
        fs::read_to_string(&header).unwrap_or_else(|e| fail(&format!("{} cannot be read: {e}", header.display())));
    let number = |name: &str| {
        text.lines()
            .filter_map(|l| l.strip_prefix("#define "))
            .find_map(|l| l.strip_prefix(name)?.trim().parse::<u32>().ok())
            .unwrap_or_else(|| fail(&format!("{} defines no {name}", header.display())))
    };
    let torch = format!("{}.{}", number("TORCH_VERSION_MAJOR"), number("TORCH_VERSION_MINOR"));
    let lock = fs::read_to_string("Cargo.lock").unwrap_or_default();
    let tch = lock
        .split("[[package]]")
        .find(|p| p.contains("name = \"tch\""))
        .and_then(|p| p.split("version = \"").nth(1)?.split('"').next())
        .unwrap_or_default();
    let short = tch.rsplit_once('.').map_or(tch, |(s, _)| s);
    if let Some((_, fitting)) = FITTING.iter().find(|(t, _)| *t == torch)
        && !tch.is_empty()
        && *fitting != short
    {
        fail(&format!("{} is libtorch {torch}, tch {tch} is for another: use tch {fitting}", libtorch.display()));
    }
}

/// `gloo/config.h` as CMake would write it with every option off: torch's headers need the file, the
/// options change nothing in them.
fn write_gloo_config(source: &Path, out: &Path) {
    let template = source.join("gloo/config.h.in");
    let text = fs::read_to_string(&template)
        .unwrap_or_else(|e| fail(&format!("GLOO_SOURCE: {} cannot be read: {e}", template.display())));
    let text: String = text
        .lines()
        .map(|line| match line.strip_prefix("#cmakedefine01 ") {
            Some(name) => format!("#define {name} 0\n"),
            None if line.contains('@') => {
                let before = line.split('@').next().unwrap_or_default();
                format!("{before} 0\n")
            }
            None => format!("{line}\n"),
        })
        .collect();
    let folder = out.join("gloo");
    fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join("config.h"), text)).unwrap_or_else(|e| {
        fail(&format!("{} cannot be written: {e}", folder.display()));
    });
}

fn fail(why: &str) -> ! {
    // Cargo shows a failed build script's standard error.
    eprintln!("error: {why}");
    std::process::exit(1)
}
