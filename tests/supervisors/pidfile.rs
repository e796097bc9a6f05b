//! The embedded supervisor and its keeper.

use std::process::Command;

use serde_json::Value;

use crate::supervisors::contract;
use crate::support::rollout::Lab;

fn set_up() -> Lab {
    let lab = Lab::new(1, "");
    contract::set_up(&lab);
    lab
}

#[test]
fn words_environment_and_limits_arrive_as_written() {
    contract::arrives_as_written(&set_up(), true, &[]);
}

#[test]
fn starting_stopping_and_reloading() {
    contract::starts_and_stops(&set_up());
}

#[test]
fn what_ends_is_up_again_and_what_flaps_has_failed() {
    let lab = set_up();
    // The keeper ends when it gives up.
    contract::flaps(&lab, || !lives(keeper(&lab)));
}

#[test]
fn the_guard_goes_back() {
    let lab = set_up();
    contract::guard_goes_back(&lab, lab.dir.join("n1").to_str().unwrap());
}

fn status(lab: &Lab) -> Value {
    lab.json(0, &["service", "status"])["services"][0].clone()
}

/// The process that keeps the service of `n1` up.
fn keeper(lab: &Lab) -> u64 {
    let text = std::fs::read(lab.dir.join("n1/roles/web/pid")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["keep"]["pid"].as_u64().unwrap()
}

fn lives(pid: u64) -> bool {
    // One that ended and was not waited for is still listed.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

fn kill(pid: &impl ToString) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

#[test]
fn a_keeper_that_is_killed_takes_nothing_with_it_and_is_replaced() {
    let lab = set_up();
    let before = status(&lab);
    let first = keeper(&lab);
    kill(&first);
    assert_eq!(status(&lab), before);
    // Nobody is left to bring it up, and that is what is told.
    kill(&before["pid"]);
    lab.until("it has failed", || status(&lab)["process"] == "failed");
    // Asking does not start it, and there is no keeper that would.
    status(&lab);
    assert!(!lives(first) && keeper(&lab) == first);
    let ended = status(&lab);
    assert_eq!(
        (&ended["process"], &ended["pid"], &ended["release"]),
        (&"failed".into(), &Value::Null, &"1-1".into())
    );
    lab.json(0, &["service", "start"]);
    let second = keeper(&lab);
    kill(&second);
    // Starting what runs already gives it a keeper again.
    let running = status(&lab)["pid"].clone();
    assert_eq!(lab.json(0, &["service", "start"])["services"][0]["pid"], running);
    assert!(![first, second].contains(&keeper(&lab)));
    kill(&running);
    lab.until("it is up again", || lab.answers() == ["1"] && status(&lab)["pid"] != running);
    let last = keeper(&lab);
    lab.json(0, &["service", "stop"]);
    lab.until("the keeper ends as well", || !lives(last));
}

#[test]
fn stopping_while_it_waits_to_come_up_again_keeps_it_down() {
    let lab = set_up();
    for _ in 0..3 {
        kill(&status(&lab)["pid"]);
        lab.until("it is down", || status(&lab)["process"] == "failed");
        let keeper = keeper(&lab);
        lab.json(0, &["service", "stop"]);
        // After its pause it finds that it has nothing to do any more.
        lab.until("the keeper ends", || !lives(keeper));
        assert_eq!(
            (status(&lab)["process"].clone(), lab.answers()),
            ("stopped".into(), vec!["-".to_owned()])
        );
        lab.json(0, &["service", "start"]);
        lab.until("it answers", || lab.answers() == ["1"]);
    }
}
