//! A Linux host whose default route is by a router at another switch (R29): it believes what its switch answers in the
//! router's name, flag and all.

use crate::common::lab;

#[test]
fn r29_a_router_keeps_its_role_at_a_linux_host() {
    let (output, _) = lab(&["router-role"]);
    assert!(output.status.success(), "the scenario found fault");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("a answers for r: the route stays"));
    assert!(text.contains("h probes r, which lives: REACHABLE"));
    // Nobody else vouches for it, though a goes on to answer who asks where it is.
    assert!(text.contains("h probes r, which is dead: FAILED"));
    assert!(text.contains("a answers for r as for no router: the route goes"), "or the test could not fail");
}
