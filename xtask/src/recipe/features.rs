//! The switches that PyTorch's build knows (2.6 to 2.15): what a recipe's `[features]` may name, for "did you mean",
//! and for what a new version has that no recipe speaks of.
//!
//! `tests/real_sources.rs` compares the table with `option(…)` of the real trees of 2.6.0 and 2.12.1, so that a switch
//! which a release adds is noticed.

use std::collections::BTreeSet;

/// Every `USE_*` / `BUILD_*` switch: of PyTorch's own list file, and those that its `setup.py` or
/// `cmake/Dependencies.cmake` read without an `option(…)` ([`NO_OPTION`]).
pub const KNOWN: &[&str] = &[
    "BUILD_AOT_INDUCTOR_TEST",
    "BUILD_BINARY",
    "BUILD_BUNDLE_PTXAS",
    "BUILD_CUSTOM_PROTOBUF",
    "BUILD_EXECUTORCH",
    "BUILD_FUNCTORCH",
    "BUILD_JNI",
    "BUILD_LAZY_CUDA_LINALG",
    "BUILD_LAZY_TS_BACKEND",
    "BUILD_LIBTORCH_CPU_WITH_DEBUG",
    "BUILD_LIBTORCH_WHL",
    "BUILD_LITE_INTERPRETER",
    "BUILD_MOBILE_AUTOGRAD",
    "BUILD_MOBILE_BENCHMARK",
    "BUILD_MOBILE_TEST",
    "BUILD_PYTHON",
    "BUILD_PYTHON_ONLY",
    "BUILD_SHARED_LIBS",
    "BUILD_STATIC_RUNTIME_BENCHMARK",
    "BUILD_TEST",
    "USE_ASAN",
    "USE_C10D_GLOO",
    "USE_C10D_MPI",
    "USE_C10D_NCCL",
    "USE_C10D_UCC",
    "USE_C10D_XCCL",
    "USE_CCACHE",
    "USE_COLORIZE_OUTPUT",
    "USE_COREML_DELEGATE",
    "USE_CPP_CODE_COVERAGE",
    "USE_CUDA",
    "USE_CUDNN",
    "USE_CUDSS",
    "USE_CUFILE",
    "USE_CUPTI_SO",
    "USE_CUSPARSELT",
    "USE_DISTRIBUTED",
    "USE_EIGEN_SPARSE",
    "USE_FAKELOWP",
    "USE_FBGEMM",
    "USE_FBGEMM_GENAI",
    "USE_FLASH_ATTENTION",
    "USE_GFLAGS",
    "USE_GLOG",
    "USE_GLOO",
    "USE_GLOO_IBVERBS",
    "USE_GLOO_WITH_OPENSSL",
    "USE_GOLD_LINKER",
    "USE_ITT",
    "USE_KINETO",
    "USE_KLEIDIAI",
    "USE_LAYERNORM_FAST_RECIPROCAL",
    "USE_LIBUV",
    "USE_LIGHTWEIGHT_DISPATCH",
    "USE_LITE_AOTI",
    "USE_LITE_INTERPRETER_PROFILER",
    "USE_LITE_PROTO",
    "USE_LSAN",
    "USE_MAGMA",
    "USE_MEM_EFF_ATTENTION",
    "USE_MIMALLOC",
    "USE_MIMALLOC_ON_MKL",
    "USE_MKLDNN",
    "USE_MKLDNN_ACL",
    "USE_MKLDNN_CBLAS",
    "USE_MPI",
    "USE_MPS",
    "USE_MSLK",
    "USE_MTIA",
    "USE_NATIVE_ARCH",
    "USE_NCCL",
    "USE_NNAPI",
    "USE_NNPACK",
    "USE_NUMA",
    "USE_NUMPY",
    "USE_NVRTC",
    "USE_NVSHMEM",
    "USE_OBSERVERS",
    "USE_OPENCL",
    "USE_OPENMP",
    "USE_PER_OPERATOR_HEADERS",
    "USE_PRECOMPILED_HEADERS",
    "USE_PRIORITIZED_TEXT_FOR_LD",
    "USE_PROF",
    "USE_PYTORCH_METAL",
    "USE_PYTORCH_METAL_EXPORT",
    "USE_PYTORCH_QNNPACK",
    "USE_RCCL",
    "USE_ROCM",
    "USE_ROCM_CK_GEMM",
    "USE_ROCM_CK_SDPA",
    "USE_ROCM_KERNEL_ASSERT",
    "USE_SNPE",
    "USE_SOURCE_DEBUG_ON_MOBILE",
    "USE_STATIC_CUDNN",
    "USE_STATIC_MKL",
    "USE_STATIC_NCCL",
    "USE_SYSTEM_BENCHMARK",
    "USE_SYSTEM_CPUINFO",
    "USE_SYSTEM_EIGEN_INSTALL",
    "USE_SYSTEM_FP16",
    "USE_SYSTEM_FXDIV",
    "USE_SYSTEM_GLOO",
    "USE_SYSTEM_LIBS",
    "USE_SYSTEM_NCCL",
    "USE_SYSTEM_NVTX",
    "USE_SYSTEM_ONNX",
    "USE_SYSTEM_PSIMD",
    "USE_SYSTEM_PTHREADPOOL",
    "USE_SYSTEM_PYBIND11",
    "USE_SYSTEM_SLEEF",
    "USE_SYSTEM_UCC",
    "USE_SYSTEM_XNNPACK",
    "USE_TENSORPIPE",
    "USE_TSAN",
    "USE_UCC",
    "USE_VALGRIND",
    "USE_VULKAN",
    "USE_VULKAN_FP16_INFERENCE",
    "USE_VULKAN_RELAXED_PRECISION",
    "USE_XCCL",
    "USE_XNNPACK",
    "USE_XPU",
];

/// Of [`KNOWN`], those that are declared as no option of the top-level list file: Gloo's and the store's libuv,
/// what `setup.py` reads for itself, and what ROCm's part of `cmake/Dependencies.cmake` reads from the environment.
pub const NO_OPTION: &[&str] =
    &["BUILD_LIBTORCH_WHL", "BUILD_PYTHON_ONLY", "USE_LAYERNORM_FAST_RECIPROCAL", "USE_LIBUV"];

/// Switches that shape the build but are not read back: CMake unsets or renames them, or never sees them.
pub const NOT_READ_BACK: &[&str] = &["BUILD_LIBTORCH_WHL", "BUILD_PYTHON_ONLY", "USE_CCACHE", "USE_SYSTEM_LIBS"];

/// The `USE_*` / `BUILD_*` switches that a list file of CMake declares: `option(NAME …)` and
/// `cmake_dependent_option(NAME …)`, whose name may stand on the next line. Comments are no code.
#[must_use]
pub fn declared(list_file: &str) -> BTreeSet<String> {
    let code: String =
        list_file.lines().filter(|l| !l.trim_start().starts_with('#')).fold(String::new(), |mut t, l| {
            t.push_str(l);
            t.push('\n');
            t
        });
    let mut out = BTreeSet::new();
    for (at, call) in code.match_indices("option(") {
        let before = code[..at].trim_end_matches("cmake_dependent_");
        if before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            // A function of another name, such as caffe2_update_option().
            continue;
        }
        let name: String = code[at + call.len()..]
            .trim_start()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        if name.starts_with("USE_") || name.starts_with("BUILD_") {
            out.insert(name);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_wherever_their_name_stands() {
        let text = "option(USE_A \"a\" ON)\n  cmake_dependent_option(\n    USE_B \"b\" ON\n \"X\" OFF)\n# option(USE_C \"c\" ON)\n\
                    caffe2_update_option(USE_D OFF)\noption(\n  BUILD_E\n  \"e\" OFF)\noption(WERROR \"w\" OFF)\n";
        assert_eq!(declared(text).into_iter().collect::<Vec<_>>(), ["BUILD_E", "USE_A", "USE_B"]);
    }

    #[test]
    fn what_is_no_option_is_known_all_the_same() {
        assert!(NO_OPTION.iter().chain(NOT_READ_BACK).all(|name| KNOWN.contains(name)));
    }
}
