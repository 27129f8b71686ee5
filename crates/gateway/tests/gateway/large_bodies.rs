//! Reading a large request does not delay other requests.

use crate::support::*;
use futures_util::FutureExt as _;

#[tokio::test]
async fn large_request_is_parsed_outside_the_async_workers() {
    let (router, _) = router(&mock("", ""));
    let invalid = |size: usize| chat(&format!(r#","x":"{}","priority":"bad""#, "y".repeat(size)));
    let small = router.call(invalid(100)).now_or_never();
    assert_eq!(small.unwrap().unwrap_err().status().as_u16(), 400);
    let mut large = Box::pin(router.call(invalid(1 << 20)));
    assert!(large.as_mut().now_or_never().is_none(), "read at once");
    let problem = large.await.unwrap_err();
    assert_eq!(
        (problem.param(), problem.info().group.as_str()),
        (Some("priority"), "m")
    );
}
