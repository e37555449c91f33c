//! Against a real runtime: set MOTE_TEST_CRI_SOCKET to its socket, and MOTE_TEST_CRI_IMAGE to an image that it has
//! and that has a shell (localhost/busybox:1 by default). Without the first variable nothing is tested here: the
//! machine that runs the tests need not have a runtime.
use async_executor::Executor;
use async_io::block_on;
use mote_cri::{Code, Runtime, v1::*};
use std::{future::Future, path::PathBuf, sync::Arc};

fn run<F: Future<Output = ()>>(test: impl FnOnce(Runtime) -> F) {
    let Ok(socket) = std::env::var("MOTE_TEST_CRI_SOCKET") else { return };
    let executor = Arc::new(Executor::new());
    let runtime = Runtime::new(vec!["/nonexistent.sock".into(), PathBuf::from(socket)], executor.clone());
    block_on(executor.run(test(runtime)));
}

fn sandbox(name: &str) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: name.into(),
            namespace: "test".into(),
            attempt: 0,
        }),
        log_directory: std::env::temp_dir().join(name).display().to_string(),
        labels: [("test".to_owned(), name.to_owned())].into(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                // On the host's network: no CNI plugin is needed.
                namespace_options: Some(NamespaceOption { network: namespace_mode::NODE, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn a_container_lives_and_dies() {
    run(|runtime| async move {
        let version = runtime.version(VersionRequest { version: "0.1.0".into() }).await.unwrap();
        assert_eq!(version.runtime_api_version, "v1");
        let conditions = runtime.status(StatusRequest::default()).await.unwrap().status.unwrap().conditions;
        assert!(conditions.iter().any(|c| c.r#type == "RuntimeReady" && c.status), "{conditions:?}");

        let config = sandbox("mote-cri-test");
        let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        let pod_sandbox_id = runtime.run_pod_sandbox(request).await.unwrap().pod_sandbox_id;
        let image = std::env::var("MOTE_TEST_CRI_IMAGE").unwrap_or("localhost/busybox:1".into());
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
            image: Some(ImageSpec { image, ..Default::default() }),
            command: vec!["sh".into(), "-c".into(), "trap 'exit 7' TERM; while :; do sleep 0.1; done".into()],
            log_path: "c.log".into(),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: config.linux.clone().and_then(|l| l.security_context?.namespace_options),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod_sandbox_id.clone(),
            config: Some(container),
            sandbox_config: Some(config),
        };
        let container_id = runtime.create_container(request).await.unwrap().container_id;
        runtime.start_container(ContainerId { container_id: container_id.clone() }).await.unwrap();

        let filter = ContainerFilter { id: container_id.clone(), ..Default::default() };
        let listed = runtime.list_containers(ListContainersRequest { filter: Some(filter) }).await.unwrap().containers;
        assert_eq!(listed.iter().map(|c| c.state).collect::<Vec<_>>(), [container_state::RUNNING]);
        let cmd = ["sh", "-c", "echo out; echo err >&2; exit 3"].map(str::to_owned).to_vec();
        let request = ExecSyncRequest { container_id: container_id.clone(), cmd, timeout: 5 };
        let answer = runtime.exec_sync(request).await.unwrap();
        assert_eq!((answer.exit_code, &answer.stdout[..], &answer.stderr[..]), (3, &b"out\n"[..], &b"err\n"[..]));

        let request = StopContainerRequest { container_id: container_id.clone(), timeout: 10 };
        runtime.stop_container(request).await.unwrap();
        let request = ContainerStatusRequest { container_id: container_id.clone(), verbose: false };
        let status = runtime.container_status(request).await.unwrap().status.unwrap();
        assert_eq!((status.state, status.exit_code), (container_state::EXITED, 7));

        runtime.remove_container(ContainerId { container_id }).await.unwrap();
        let id = || PodSandboxId { pod_sandbox_id: pod_sandbox_id.clone() };
        runtime.stop_pod_sandbox(id()).await.unwrap();
        runtime.remove_pod_sandbox(id()).await.unwrap();
        let _ = std::fs::remove_dir_all(std::env::temp_dir().join("mote-cri-test"));
    });
}

#[test]
fn errors_carry_code_and_words() {
    run(|runtime| async move {
        let request = ContainerStatusRequest { container_id: "nosuch".into(), verbose: false };
        let error = runtime.container_status(request).await.unwrap_err();
        assert_eq!((error.code(), error.doing()), (Code::NOT_FOUND, "ContainerStatus"));
        assert!(error.to_string().starts_with("rpc error: code = NotFound desc = "), "{error}");
    });
}

#[test]
fn a_missing_socket_is_unavailable() {
    let executor = Arc::new(Executor::new());
    let runtime = Runtime::new(vec!["/nonexistent/cri.sock".into()], executor.clone());
    let error = block_on(executor.run(runtime.version(VersionRequest::default()))).unwrap_err();
    assert!(error.is_unavailable());
    assert!(error.message().contains("dial unix /nonexistent/cri.sock: "), "{error}");
}
