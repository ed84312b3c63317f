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
    let workspace = xtask::recipe::Workspace { root: w.path().to_owned() };
    let over = workspace.load("over").unwrap();
    assert_eq!(over.torch.full_version(), "2.6.0+mine");
    assert_eq!(over.features.get("USE_MKLDNN"), Some(&true));
    assert_eq!(over.features.get("USE_DISTRIBUTED"), Some(&true));
    assert_eq!(over.torch.status, xtask::recipe::Status::NotYetBuiltHere, "what a base is known for is not inherited");
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
        toml::from_str::<xtask::recipe::Lock>(&lock).unwrap().source["libuv"].sha256.clone()
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
    let workspace = xtask::recipe::Workspace { root: crate::support::root() };
    let names = workspace.recipe_names();
    assert!(names.contains(&"torch-2.6.0-cpu".to_owned()));
    for name in names {
        let recipe = workspace.load(&name).unwrap();
        let lock = xtask::recipe::Lock::path_for(&workspace.recipe_path(&name));
        if lock.exists() {
            xtask::recipe::Lock::load(&recipe, &workspace.recipe_path(&name)).unwrap();
        } else {
            assert_eq!(
                recipe.torch.status,
                xtask::recipe::Status::NotYetBuiltHere,
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
        let workspace = xtask::recipe::Workspace { root: w.path().to_owned() };
        proptest::prop_assert!(workspace.load("x").is_err());
    }
}
