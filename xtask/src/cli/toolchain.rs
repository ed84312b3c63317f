//! `toolchain`: one toolchain of a recipe, assembled and tried.

use clap::{Args as ClapArgs, Subcommand};

use super::common::{RecipeArgs, ToolArgs, print_json};
use crate::error::Result;
use crate::stage::steps::cuda::{self, Cuda};
use crate::stage::{Downloads, Options, ensure};
use crate::toolchain::cuda::Toolkit;

/// Assemble a toolchain of a recipe, try it, and print where it is
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  cargo xtask toolchain cuda --recipe torch-2.6.0-cu124")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The CUDA toolkit: compiler, headers and libraries from locked coordinates, without root
    #[command(after_help = "\
Examples:
  cargo xtask toolchain cuda --recipe torch-2.6.0-cu124
  cargo xtask toolchain cuda -r torch-2.6.0-cu124 --cuda-home /usr/local/cuda

The toolkit is tried by compiling, linking and running a program with cub,
cuBLAS, cuDNN and NCCL. No GPU and no driver are needed.")]
    Cuda(CudaArgs),
}

#[derive(Debug, ClapArgs)]
struct CudaArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    tools: ToolArgs,
}

/// Runs the command.
///
/// # Errors
/// Bad input in recipe or lock, or a recipe without CUDA; no Python or compiler that fits; a stage fails; nvcc does not
/// run.
pub fn run(args: Args) -> Result<()> {
    let What::Cuda(args) = args.what;
    let session = args.recipe.session()?;
    let options = Options { downloads: Downloads::Only(cuda::is_part), ..Options::default() };
    let build = session.read(&args.recipe, &args.tools, options)?;
    cuda::wanted(&build)?;
    let made = ensure::<Cuda>(&build)?;
    let (dir, versions) = (made.folder, made.record.versions);
    let nvcc = Toolkit { root: dir.clone() }.version()?;
    if args.recipe.json {
        print_json(&serde_json::json!({
            "schema_version": 1,
            "recipe": build.recipe.name,
            "folder": dir,
            "installed": build.cuda_home.is_some(),
            "nvcc": nvcc,
            "versions": versions,
            "identity": cuda::identity(&build)?,
        }));
    } else {
        println!("{}", dir.display());
    }
    Ok(())
}
