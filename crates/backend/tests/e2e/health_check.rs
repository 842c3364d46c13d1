//! What a container engine runs to see whether the service in it lives.

use crate::stack::{BOUND, Backend};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_binary_tells_whether_the_service_lives() {
    let backend = Backend::start(&[]).await;
    let ask = async |port: u16| {
        let port = port.to_string();
        let check =
            testkit::service(env!("CARGO_BIN_EXE_backend"), &["healthcheck"], &[("PORT", port.as_str())]);
        check.wait(BOUND).await
    };
    assert_eq!(ask(backend.port).await, 0);
    assert_eq!(ask(testkit::free_port()).await, 1);
}
