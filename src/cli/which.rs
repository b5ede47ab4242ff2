//! Which installation a command is about: what the command line alone says, whether the configuration
//! can be read or not.

use super::state::Target;
use crate::config::Config;
use crate::daemon::Place;

use std::path::{Path, PathBuf};

pub struct Which {
    pub name: String,
    root: PathBuf,
    file: PathBuf,
    source: Source,
}

#[derive(PartialEq, Eq)]
enum Source {
    File,
    /// The configuration that is built in.
    Demo,
}

impl Which {
    /// conf/NAME.ini under this root, or under the installation's.
    pub fn named(name: &str, root: Option<&Path>) -> Result<Which, String> {
        if name.contains('/') {
            return Err(format!("{name} is not a name (for a file use -c {name})"));
        }
        let root = absolute(root.map_or_else(installation, Path::to_owned))?;
        let file = root.join("conf").join(format!("{name}.ini"));
        let source = match name {
            "demo" if !file.exists() => Source::Demo,
            _ => Source::File,
        };
        Ok(Which { name: name.into(), root, file, source })
    }

    /// A file anywhere; without a root the folder it stands in, or the one that holds conf/.
    pub fn of_file(file: &Path, root: Option<&Path>) -> Result<Which, String> {
        let file = absolute(file.to_owned())?;
        let folder = file.parent().unwrap_or(Path::new("/"));
        let in_conf = folder.file_name().is_some_and(|name| name == "conf");
        let beside = if in_conf { folder.parent().unwrap_or(folder) } else { folder };
        let root = absolute(root.unwrap_or(beside).to_owned())?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Which { name, root, file, source: Source::File })
    }

    /// There is a configuration, right or wrong.
    pub fn exists(&self) -> bool {
        self.source == Source::Demo || self.file.exists()
    }

    /// Who asks may not read the file, which is there.
    pub fn is_closed(&self) -> bool {
        let opened = std::fs::File::open(&self.file);
        opened.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    }

    pub fn config(&self) -> Result<Config, String> {
        let loaded = match self.source {
            Source::File => Config::load(&self.file, &self.root),
            Source::Demo => Config::demo(&self.root),
        };
        loaded.map_err(|error| error.to_string())
    }

    /// Where its daemon may be found; what was planted there is named.
    pub fn target(&self, config: Option<&Config>) -> Target {
        let (places, doubt) = Place::all(&self.root, &self.name, &self.file, config);
        if let Some(why) = doubt {
            eprintln!("mega: warning: {why}");
        }
        Target { name: self.name.clone(), places }
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, String> {
    std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The closest folder above the executable that holds conf/, else the current folder.
fn installation() -> PathBuf {
    let executable = std::env::current_exe().unwrap_or_default();
    let above = executable.ancestors().skip(1).take(4).find(|folder| folder.join("conf").is_dir());
    above.map_or_else(|| PathBuf::from("."), Path::to_owned)
}
