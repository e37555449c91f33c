//! The standard gRPC health check (grpc/doc/health-checking.md): what gRPC probes ask. Not CRI, but the same client.
use crate::{
    runtime::Address,
    v1::{HealthCheckRequest, HealthCheckResponse},
};
use async_executor::Executor;
use mote_grpc::{Channel, Error, Method};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// What a server says of a service of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    Unknown,
    Serving,
    NotServing,
    ServiceUnknown,
}

/// Asks once, over a connection of its own.
pub async fn check_health(
    executor: Arc<Executor<'static>>,
    address: SocketAddr,
    service: &str,
    timeout: Duration,
) -> Result<Serving, Error> {
    let channel = Channel::new(Box::new(Address::Tcp(address)), executor);
    let method = Method { doing: "Check", path: "/grpc.health.v1.Health/Check" };
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer: HealthCheckResponse = channel.call(method, Some(timeout), &request).await?;
    Ok(match answer.status {
        1 => Serving::Serving,
        2 => Serving::NotServing,
        3 => Serving::ServiceUnknown,
        _ => Serving::Unknown,
    })
}
