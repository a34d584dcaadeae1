//! `POST /commands/{name}`: what the agent's own configuration names, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use host::http::CallError;
use lanes::token_client::{TokenClient, User, Wish};
use model::command::{CommandAnswer, CommandConfig, CommandOrder, OUTPUT_LIMIT};
use model::ids::{ClientId, Lane};
use model::quantity::Span;
use model::shard::{Issuer, TokenSource};

use crate::support::{Node, SECOND, refusal, until, until_gone};

const LONG: Duration = Duration::from_secs(20);

fn shell(script: &str, within: Span) -> CommandConfig {
    CommandConfig {
        run: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        within,
    }
}

/// An agent with one command, `it`.
async fn agent_with(script: &str, within: Span) -> Node {
    Node::with_commands([("it".to_owned(), shell(script, within))].into()).await
}

async fn run(node: &Node, variables: &[(&str, &str)]) -> Result<CommandAnswer, CallError> {
    let variables: BTreeMap<_, _> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let order = CommandOrder { variables };
    node.agent.run_command("it", &order, LONG).await
}

/// The process ids that a script has written into its folder.
async fn pids(node: &Node, file: &str) -> Vec<u32> {
    let path = node.state_dir().join("commands").join(file);
    let read = || async { fs::read_to_string(&path).is_ok_and(|text| text.ends_with("all\n")) };
    until("the script has written its processes", read).await;
    fs::read_to_string(&path)
        .unwrap()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect()
}

/// Writes down its own process and one that it has started, and stays.
const FAMILY: &str = "sleep 100 & printf '%s\\n%s\\nall\\n' $! $$ > pids; wait";

#[tokio::test]
async fn a_command_runs_in_a_folder_of_its_own_and_its_end_and_outputs_are_told() {
    let node = agent_with("pwd; echo bad >&2; exit 3", Span::from_secs(10)).await;
    let answer = run(&node, &[]).await.unwrap();
    let told = (answer.exit, answer.signal, answer.timed_out);
    assert_eq!(told, (Some(3), None, false));
    let folder = node.state_dir().join("commands");
    assert_eq!(
        Path::new(answer.stdout.trim()).canonicalize().unwrap(),
        folder.canonicalize().unwrap()
    );
    assert_eq!(answer.stderr, "bad\n");

    let killed = agent_with("kill -9 $$", Span::from_secs(10)).await;
    let answer = run(&killed, &[]).await.unwrap();
    assert_eq!((answer.exit, answer.signal), (None, Some(9)));
}

#[tokio::test]
async fn what_a_command_writes_into_its_folder_is_no_residue() {
    let node = agent_with("echo x > left-behind", Span::from_secs(10)).await;
    node.agent.mark_residue().await.unwrap();
    assert_eq!(run(&node, &[]).await.unwrap().exit, Some(0));
    let residue = node.agent.residue().await.unwrap();
    assert!(residue.owned.is_empty(), "{residue:?}");
    let state = node.state_dir();
    let _folder = node.end().await;
    assert!(!state.exists(), "it goes with the agent");
}

#[tokio::test]
async fn a_command_that_is_not_configured_is_refused_with_those_that_are() {
    let node = agent_with("true", Span::from_secs(10)).await;
    let order = CommandOrder::default();
    let (status, words) = refusal(node.agent.run_command("rm", &order, LONG).await);
    assert_eq!(status, 404);
    for word in ["`rm`", "the agent's own configuration", "it has it"] {
        assert!(words.contains(word), "`{word}` in {words}");
    }
    let bare = Node::start().await;
    let (status, words) = refusal(bare.agent.run_command("rm", &order, LONG).await);
    assert!(status == 404 && words.contains("it has none"), "{words}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let config = CommandConfig {
        run: vec!["/nonexistent/program".to_owned()],
        within: Span::from_secs(1),
    };
    let node = Node::with_commands([("it".to_owned(), config)].into()).await;
    let (status, words) = refusal(run(&node, &[]).await);
    assert_eq!(status, 500);
    assert!(
        words.contains("`it`") && words.contains("/nonexistent/program"),
        "{words}"
    );
}

#[tokio::test]
async fn a_caller_sets_variables_of_faultlane_and_no_others() {
    let node = agent_with(
        "env | cut -d= -f1 | sort; echo \"$FAULTLANE_IDENTITY\"",
        Span::from_secs(10),
    )
    .await;
    let answer = run(&node, &[("FAULTLANE_IDENTITY", "u 1; $(id)")])
        .await
        .unwrap();
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(lines.last(), Some(&"u 1; $(id)"));
    let allowed = ["FAULTLANE_IDENTITY", "HOME", "LANG", "PATH"];
    // What a shell sets by itself.
    let shells = ["PWD", "OLDPWD", "SHLVL", "_"];
    let names = &lines[..lines.len() - 1];
    for name in names {
        assert!(
            allowed.contains(name) || shells.contains(name),
            "{name} was passed on"
        );
    }
    assert!(
        names.contains(&"PATH") && names.contains(&"FAULTLANE_IDENTITY"),
        "{names:?}"
    );

    for (name, value) in [
        ("LD_PRELOAD", "x.so"),
        ("PATH", "/tmp"),
        ("FAULTLANE_", "x"),
        ("FAULTLANE_a", "x"),
        ("FAULTLANE_X", "a\0b"),
    ] {
        let (status, words) = refusal(run(&node, &[(name, value)]).await);
        assert_eq!(status, 400, "{words}");
        assert!(words.contains(&format!("`{name}`")), "{words}");
    }
}

#[tokio::test]
async fn one_that_takes_too_long_is_killed_with_its_whole_group() {
    let script = format!("echo begun; {FAMILY}");
    let node = agent_with(&script, Span::from_millis(500)).await;
    let answer = run(&node, &[]).await.unwrap();
    assert!(answer.timed_out, "{answer:?}");
    assert_eq!((answer.exit, answer.signal), (None, Some(9)));
    assert_eq!(answer.stdout, "begun\n");
    let family = pids(&node, "pids").await;
    assert_eq!(family.len(), 2, "{family:?}");
    for pid in family {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn what_a_command_leaves_in_its_group_ends_with_it_and_does_not_keep_its_caller_waiting() {
    let node = agent_with(
        "sleep 100 & printf '%s\\nall\\n' $! > pids; exit 0",
        Span::from_secs(60),
    )
    .await;
    let answer = run(&node, &[]).await.unwrap();
    assert_eq!((answer.exit, answer.timed_out), (Some(0), false));
    for pid in pids(&node, "pids").await {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn a_command_whose_caller_has_gone_is_killed() {
    let node = agent_with(FAMILY, Span::from_secs(60)).await;
    let order = CommandOrder::default();
    let answer = node.agent.run_command("it", &order, SECOND / 2).await;
    assert!(
        matches!(answer, Err(CallError::TimedOut { .. })),
        "{answer:?}"
    );
    for pid in pids(&node, "pids").await {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn commands_do_not_outlive_an_agent_that_is_killed() {
    let node = agent_with(FAMILY, Span::from_secs(60)).await;
    let agent = node.agent.clone();
    let call = tokio::spawn(async move {
        let order = CommandOrder::default();
        agent.run_command("it", &order, LONG).await
    });
    let family = pids(&node, "pids").await;
    let _again = node.kill_and_start_again().await;
    assert!(call.await.unwrap().is_err());
    for pid in family {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn of_a_long_output_the_beginning_is_kept_and_the_command_is_not_held_up() {
    let script = "yes 0123456 | head -c 1000000; yes abcdefg | head -c 1000000 >&2; exit 4";
    let node = agent_with(script, Span::from_secs(15)).await;
    let answer = run(&node, &[]).await.unwrap();
    assert_eq!((answer.exit, answer.timed_out), (Some(4), false));
    assert_eq!(answer.stdout.len(), OUTPUT_LIMIT);
    assert_eq!(answer.stderr.len(), OUTPUT_LIMIT);
    assert!(answer.stdout.starts_with("0123456\n") && answer.stderr.starts_with("abcdefg\n"));
}

#[tokio::test]
async fn a_few_run_at_once_and_all_of_many_have_their_turn() {
    // Each counts those that run with it: a folder is made or is there already, in one step.
    let script = "d=running/$$; mkdir -p $d; ls running | wc -l; sleep 0.05; rmdir $d";
    let node = agent_with(script, Span::from_secs(15)).await;
    let calls = (0..30).map(|_| run(&node, &[]));
    let answers = futures_util::future::join_all(calls).await;
    let mut most = 0;
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!(answer.exit, Some(0), "{answer:?}");
        most = most.max(answer.stdout.trim().parse::<u32>().unwrap());
    }
    assert!((2..=8).contains(&most), "{most} at once");
}

#[tokio::test]
async fn a_halted_agent_runs_no_command() {
    let node = agent_with("true", Span::from_secs(10)).await;
    node.agent.halt().await.unwrap();
    assert_eq!(refusal(run(&node, &[]).await).0, 423);
    node.agent.clear_halt().await.unwrap();
    assert_eq!(run(&node, &[]).await.unwrap().exit, Some(0));
}

#[tokio::test]
async fn a_fleet_is_given_tokens_that_a_command_makes_for_what_is_asked() {
    let script = "printf '%s' \"$FAULTLANE_IDENTITY/$FAULTLANE_STREAMS/$FAULTLANE_SCOPES/$FAULTLANE_TTL_SECONDS\"";
    let node = agent_with(script, Span::from_secs(10)).await;
    let source = TokenSource {
        issuer: Issuer::Command {
            name: "it".to_owned(),
            agent: node.agent.addr(),
        },
        org: "acme".to_owned(),
        identities: None,
    };
    let tokens = TokenClient::new(&source, Lane::Khala, Span::from_secs(5)).expect("no TLS");
    let wish = Wish {
        org: "acme".to_owned(),
        user: User::Client(ClientId(7)),
        scopes: vec!["sync.subscribe".to_owned()],
        streams: vec!["s.1".to_owned(), "s.2".to_owned()],
        ttl: 60,
    };
    let held = tokens.fetch(&wish).await.expect("printed");
    assert_eq!(held.jwt, "c0007/s.1,s.2/sync.subscribe/60");

    for (script, complaint) in [
        ("echo 'no key' >&2; exit 3", "it ended with 3: no key"),
        ("echo two words", "one token and nothing else"),
    ] {
        let node = agent_with(script, Span::from_secs(10)).await;
        let source = TokenSource {
            issuer: Issuer::Command {
                name: "it".to_owned(),
                agent: node.agent.addr(),
            },
            ..source.clone()
        };
        let tokens = TokenClient::new(&source, Lane::Khala, Span::ZERO).expect("no TLS");
        let refusal = tokens.fetch(&wish).await.expect_err(script);
        assert!(refusal.reason.contains(complaint), "{}", refusal.reason);
    }
}
