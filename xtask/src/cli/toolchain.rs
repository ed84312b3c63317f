//! `toolchain`: one toolchain of a recipe, assembled and tried.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::common::{RecipeArgs, ToolArgs, print_json};
use crate::error::Result;
use crate::stage::steps::cuda::{self, Cuda};
use crate::stage::steps::prefix::Prefix;
use crate::stage::{Downloads, Options, ensure, ensure_of};
use crate::toolchain::cuda::Toolkit;

/// Assemble a toolchain of a recipe, try it, and print where it is
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  cargo xtask toolchain cuda --recipe torch-2.12.1-cu130")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The CUDA toolkit: compiler, headers and libraries from locked coordinates, without root
    #[command(after_help = "\
Examples:
  cargo xtask toolchain cuda --recipe torch-2.12.1-cu130
  cargo xtask toolchain cuda -r torch-2.12.1-cu130 --cuda-home /usr/local/cuda
  cargo xtask toolchain cuda -r torch-2.12.1-cu130-sm90 --trial trial

The toolkit is tried by compiling, linking and running a program with cub,
cuBLAS, cuDNN and NCCL. No GPU and no driver are needed. Where there is a GPU,
'trial/trial gpu' computes with each of them and compares; 'trial/nested gpu'
launches a kernel from a kernel. They find CUDA by LD_LIBRARY_PATH.")]
    Cuda(CudaArgs),
}

#[derive(Debug, ClapArgs)]
struct CudaArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    tools: ToolArgs,
    /// Leave the programs that it is tried with there, for a machine with a GPU
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    trial: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Bad input in recipe or lock, or a recipe without CUDA; no Python or compiler that fits; a stage fails; nvcc does not
/// run, or what it is tried with cannot be left where it was asked for. The answer is no: the recipe came from elsewhere.
pub fn run(args: Args) -> Result<()> {
    let What::Cuda(args) = args.what;
    let session = args.recipe.session()?;
    let options = Options { downloads: Downloads::Only(cuda::is_part), other_system: true, ..Options::default() };
    // Whoever wrote the recipe says which packages it is made of, and its compiler is run.
    let build = session.build(&args.recipe, &args.tools, options)?;
    cuda::wanted(&build)?;
    let made = ensure::<Cuda>(&build)?;
    let (dir, versions) = (made.folder, made.record.versions);
    let toolkit = Toolkit { root: dir.clone() };
    let nvcc = cuda::nvcc(&build, &toolkit)?;
    if let Some(folder) = &args.trial {
        fs_err::create_dir_all(folder)?;
        let beside = cuda::beside(&build).map(|name| ensure_of::<Prefix>(&build, name)).transpose()?;
        cuda::tried(&build, &toolkit, beside.map(|made| made.folder).as_deref(), folder)?;
        session.events.note(format!("left the programs of the trial in {}", folder.display()));
    }
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
