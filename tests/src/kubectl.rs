//! Real kubectl, against one server and in one namespace.
use std::{
    fmt,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

#[derive(Clone)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    /// Run in the network namespace of this process.
    network_of: Option<u32>,
    namespace: Option<String>,
}

pub struct Output {
    command: String,
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Output { command, success, stdout, stderr } = self;
        write!(f, "kubectl {command} (success: {success})\n{stdout}\n{stderr}")
    }
}

impl Kubectl {
    pub fn new(kubeconfig: &Path, network_of: Option<u32>) -> Kubectl {
        Kubectl { kubeconfig: kubeconfig.to_owned(), network_of, namespace: None }
    }

    /// The same administrator in a namespace.
    pub fn within(&self, namespace: &str) -> Kubectl {
        Kubectl { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// A new namespace for one test, so that tests on one node do not meet.
    #[track_caller]
    pub fn namespace(&self, purpose: &str) -> Kubectl {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{purpose}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.ok(&format!("create namespace {name}"));
        let kubectl = self.within(&name);
        kubectl.wait_for_account();
        kubectl
    }

    /// Pods are refused until the controllers have made their namespace's account.
    #[track_caller]
    pub fn wait_for_account(&self) {
        crate::eventually("the default account", 10, || {
            self.field("serviceaccount/default", ".metadata.name").map(drop)
        });
    }

    pub fn name(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let kubectl = std::env::var_os("MOTE_KUBECTL").unwrap_or_else(|| "kubectl".into());
        let mut command = match self.network_of {
            Some(pid) => {
                let mut command = Command::new("nsenter");
                command.args(["--target", &pid.to_string(), "--net", "--"]).arg(kubectl);
                command
            }
            None => Command::new(kubectl),
        };
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", "/nonexistent").env_remove("HTTPS_PROXY");
        command.arg("--cache-dir").arg(self.kubeconfig.with_extension("cache"));
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// In the background, for watches and port-forwards; the caller ends it.
    pub fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).spawn().expect("kubectl starts")
    }

    pub fn with_input(&self, args: &[&str], input: Option<&str>) -> Output {
        let mut command = self.command(args);
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().expect("kubectl starts; is MOTE_KUBECTL right?");
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // kubectl may have refused its arguments and gone.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().expect("kubectl ends");
        Output {
            command: args.join(" "),
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Arguments separated by spaces, for those that have none in them.
    pub fn run(&self, line: &str) -> Output {
        self.with_input(&line.split_whitespace().collect::<Vec<_>>(), None)
    }

    /// What it printed; panics when it fails.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.ok_args(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[track_caller]
    pub fn ok_args(&self, args: &[&str]) -> String {
        let output = self.with_input(args, None);
        assert!(output.success, "{output}");
        output.stdout
    }

    /// What it complained of; panics when it works.
    #[track_caller]
    pub fn fails(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(!output.success, "{output}");
        output.stderr
    }

    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        let output = self.with_input(&["apply", "-f", "-"], Some(manifest));
        assert!(output.success, "{output}\n{manifest}");
        output.stdout
    }

    /// One field, by JSONPath without braces: `field("pod/x", ".status.phase")`.
    pub fn field(&self, object: &str, path: &str) -> Result<String, String> {
        let output = self.with_input(&["get", object, "-o", &format!("jsonpath={{{path}}}")], None);
        if output.success { Ok(output.stdout) } else { Err(output.to_string()) }
    }

    #[track_caller]
    pub fn eventually_field(&self, object: &str, path: &str, expected: &str, seconds: u64) {
        crate::eventually(&format!("{object} {path} is {expected:?}"), seconds, || match self.field(object, path)? {
            found if found == expected => Ok(()),
            found => Err(format!("it is {found:?}")),
        });
    }
}
