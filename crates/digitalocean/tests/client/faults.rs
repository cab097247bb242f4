//! What the network and the API do wrong.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use egress_digitalocean::{
    ActionId, Client, Deletion, DropletAction, DropletFilter, DropletId, Error, FenceLost, RefusalKind,
    Retry, TagCreation, TagName,
};

use crate::fake::{CANARY, Fake, Leader, Reply, client, json, new_droplet, refusal, with_headers, within};

const DROPLET: &str = r#"{"droplet": {"id": 3164494, "name": "egress-demo-0-1a2b3c4d", "status": "new",
    "networks": {}}, "links": {"actions": [{"id": 7515, "rel": "create", "href": "https://x/v2/actions/7515"}]}}"#;

/// Makes the same answer again and again.
type Script = Box<dyn Fn() -> Reply + Send + Sync>;

async fn create(client: &Client) -> Result<egress_digitalocean::CreatedDroplet, Error> {
    within(Duration::from_secs(25), client.create_droplet(&new_droplet("egress-demo-0-1a2b3c4d"), &Leader))
        .await
}

fn ambiguous(outcome: Result<egress_digitalocean::CreatedDroplet, Error>) -> Error {
    let error = outcome.unwrap_err();
    assert_eq!((error.category(), error.retry()), ("ambiguous", Retry::AmbiguousMayHaveHappened), "{error}");
    assert!(error.to_string().contains("ambiguous"), "{error}");
    error
}

#[tokio::test]
async fn a_create_tells_the_id_and_its_action() {
    let fake = Fake::start(|_, _| json(202, DROPLET)).await;
    let created = create(&fake.client()).await.unwrap();
    assert_eq!(created.droplet.id, DropletId(3_164_494));
    assert_eq!(created.create_action, Some(ActionId(7515)));
    let asked = &fake.asked()[0];
    assert_eq!(asked.header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(asked.header("accept"), Some("application/json"));
    assert!(asked.header("user-agent").unwrap().starts_with("egress-gateway/"));
}

#[tokio::test]
async fn a_create_without_a_clear_answer_is_ambiguous_and_sent_once() {
    let half = DROPLET.len();
    let cut = format!("HTTP/1.1 202 X\r\ncontent-length: {half}\r\n\r\n{}", &DROPLET[..40]);
    let replies: Vec<(&str, Script)> = vec![
        ("reset", Box::new(|| Reply::Reset)),
        ("closed unanswered", Box::new(|| Reply::Bytes(Vec::new()))),
        ("half a header", Box::new(|| Reply::Bytes(b"HTTP/1.1 202 Acc".to_vec()))),
        ("half a body", Box::new(move || Reply::Bytes(cut.clone().into_bytes()))),
        ("half a JSON text", Box::new(|| json(202, &DROPLET[..60]))),
        ("no Droplet in it", Box::new(|| json(202, "{}"))),
        ("empty", Box::new(|| json(202, ""))),
        ("500", Box::new(|| refusal(500, "server_error", "Unexpected server-side error"))),
        ("502 page", Box::new(|| json(502, "<html><body>Bad Gateway</body></html>"))),
        ("503", Box::new(|| with_headers(503, "retry-after: 5\r\n", "{}"))),
        ("504", Box::new(|| json(504, ""))),
        ("no HTTP", Box::new(|| Reply::Bytes(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()))),
    ];
    for (name, reply) in replies {
        let fake = Fake::start(move |_, _| reply()).await;
        let error = ambiguous(create(&fake.client()).await);
        assert_eq!(fake.count(), 1, "{name}: {error}");
    }
}

/// A connection that was good for the last request and dies under this one: where HTTP libraries like to try again.
#[tokio::test]
async fn a_create_on_a_used_connection_that_dies_is_ambiguous_and_sent_once() {
    for dies in [|| Reply::Reset, || Reply::Bytes(Vec::new())] {
        let fake = Fake::start(move |request, _| match request.method.as_str() {
            "GET" => {
                Reply::KeepAlive(b"HTTP/1.1 200 X\r\ncontent-length: 15\r\n\r\n{\"account\": {}}".to_vec())
            }
            _ => dies(),
        })
        .await;
        let client = fake.client();
        client.account().await.unwrap();
        // Spawned, as the controller does: the futures of the client must be Send.
        ambiguous(tokio::spawn(async move { create(&client).await }).await.unwrap());
        let asked = fake.asked();
        assert_eq!(asked.iter().map(|request| request.method.as_str()).collect::<Vec<_>>(), ["GET", "POST"]);
        assert_eq!(asked[0].port, asked[1].port, "the connection was not used again: nothing was tested");
    }
}

#[tokio::test]
async fn a_create_that_is_never_answered_ends_as_ambiguous_at_its_deadline() {
    let fake = Fake::start(|_, _| Reply::Silence).await;
    let begin = std::time::Instant::now();
    ambiguous(create(&fake.client()).await);
    assert!(begin.elapsed() < egress_digitalocean::deadline::CHANGE + Duration::from_secs(3));
    assert_eq!(fake.count(), 1);
}

#[tokio::test]
async fn a_create_that_was_refused_or_never_left_is_not_ambiguous() {
    let fake = Fake::start(|_, number| match number {
        0 => refusal(
            422,
            "unprocessable_entity",
            "creating this/these droplet(s) will exceed your droplet limit",
        ),
        1 => refusal(422, "unprocessable_entity", "You specified an invalid size for Droplet creation."),
        2 => with_headers(
            429,
            "retry-after: 1\r\n",
            r#"{"id": "too_many_requests", "message": "API Rate limit exceeded."}"#,
        ),
        _ => json(401, r#"{"id": "unauthorized", "message": "Unable to authenticate you."}"#),
    })
    .await;
    let client_of_fake = fake.client();
    let quota = create(&client_of_fake).await.unwrap_err();
    assert_eq!((quota.category(), quota.refused_as()), ("quota", Some(RefusalKind::Quota)));
    let size = create(&client_of_fake).await.unwrap_err();
    assert_eq!(size.retry(), Retry::AfterSpecChange);
    assert!(size.to_string().contains("You specified an invalid size"), "{size}");
    assert!(size.to_string().contains("request req-422"), "{size}");
    let rate = create(&client_of_fake).await.unwrap_err();
    assert_eq!(rate.retry(), Retry::After(Duration::from_secs(1)));
    let token = create(&client_of_fake).await.unwrap_err();
    assert_eq!(token.category(), "unauthorized");
    assert_eq!(fake.count(), 4);

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let unreachable = create(&client(&address)).await.unwrap_err();
    assert_eq!((unreachable.category(), unreachable.retry()), ("unreachable", Retry::Soon), "{unreachable}");
}

#[tokio::test]
async fn every_changing_call_asks_the_fence_and_sends_nothing_when_it_says_no() {
    let fake = Fake::start(|_, _| json(202, DROPLET)).await;
    let client = fake.client();
    let asked = AtomicUsize::new(0);
    let lost = || {
        asked.fetch_add(1, Ordering::SeqCst);
        Err(FenceLost::new("the lease ran out 3 s ago"))
    };
    let id = DropletId(1);
    let outcomes = [
        client.create_droplet(&new_droplet("a"), &lost).await.err(),
        client.delete_droplet(id, &lost).await.err(),
        client.act_on_droplet(id, DropletAction::PowerOn, &lost).await.err(),
        client.ensure_tag(&TagName::new("egress-gateway").unwrap(), &lost).await.err(),
    ];
    for error in outcomes.map(Option::unwrap) {
        assert_eq!((error.category(), error.retry()), ("fenced", Retry::Never), "{error}");
        assert!(error.to_string().contains("the lease ran out 3 s ago"));
    }
    assert_eq!((asked.load(Ordering::SeqCst), fake.count()), (4, 0));
}

#[tokio::test]
async fn reads_are_tried_three_times_at_most_and_then_tell_the_last_error() {
    let fake = Fake::start(|_, number| match number {
        0 => Reply::Reset,
        1 => json(502, "<html>Bad Gateway</html>"),
        _ => json(200, DROPLET),
    })
    .await;
    let droplet = fake.client().droplet(DropletId(3_164_494)).await.unwrap().unwrap();
    assert_eq!((droplet.id, fake.count()), (DropletId(3_164_494), 3));

    let broken = Fake::start(|_, _| json(500, r#"{"id": "server_error", "message": "Sorry."}"#)).await;
    let error = broken.client().droplet(DropletId(1)).await.unwrap_err();
    assert_eq!((error.category(), broken.count()), ("server_error", 3));

    let refused =
        Fake::start(|_, _| refusal(403, "forbidden", "You are missing the scope droplet:read")).await;
    let error = refused.client().droplet(DropletId(1)).await.unwrap_err();
    assert_eq!((error.category(), refused.count()), ("forbidden", 1));
}

#[tokio::test]
async fn a_read_that_is_never_answered_ends() {
    let fake = Fake::start(|_, _| Reply::Silence).await;
    let most = egress_digitalocean::deadline::READ + Duration::from_secs(3);
    let error = within(most, fake.client().account()).await.unwrap_err();
    assert_eq!((error.category(), error.retry()), ("lost", Retry::Soon), "{error}");
    assert!((2..=3).contains(&fake.count()), "{}", fake.count());
}

#[tokio::test]
async fn only_the_apis_own_word_makes_a_droplet_gone() {
    let fake = Fake::start(|request, number| match (request.method.as_str(), number % 2) {
        (_, 0) => refusal(404, "not_found", "The resource you were accessing could not be found."),
        _ => json(404, "<html>no such site</html>"),
    })
    .await;
    let client = fake.client();
    let id = DropletId(1);
    assert_eq!(client.droplet(id).await.unwrap(), None);
    assert_eq!(client.droplet(id).await.unwrap_err().category(), "unexpected_answer");
    assert_eq!(client.delete_droplet(id, &Leader).await.unwrap(), Deletion::AlreadyGone);
    assert_eq!(client.delete_droplet(id, &Leader).await.unwrap_err().category(), "unexpected_answer");
    let tagged = DropletFilter::Tag(TagName::new("egress-gateway").unwrap());
    assert_eq!(client.droplets(&tagged).await.unwrap(), Vec::new());
    assert_eq!(client.droplets(&tagged).await.unwrap_err().category(), "unexpected_answer");
}

#[tokio::test]
async fn a_delete_without_an_answer_may_simply_be_repeated() {
    let fake = Fake::start(|_, number| match number {
        0 => Reply::Reset,
        1 => refusal(422, "unprocessable_entity", "Droplet already has a pending event."),
        _ => Reply::Bytes(b"HTTP/1.1 204 No Content\r\ncontent-type: application/json\r\n\r\n".to_vec()),
    })
    .await;
    let client = fake.client();
    let id = DropletId(3_164_494);
    let lost = client.delete_droplet(id, &Leader).await.unwrap_err();
    assert_eq!((lost.category(), lost.retry(), fake.count()), ("lost", Retry::Soon, 1));
    let busy = client.delete_droplet(id, &Leader).await.unwrap_err();
    assert_eq!((busy.category(), busy.retry()), ("busy", Retry::After(Duration::from_secs(10))));
    assert_eq!(client.delete_droplet(id, &Leader).await.unwrap(), Deletion::Accepted);
    let asked = &fake.asked()[2];
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("DELETE", "/v2/droplets/3164494"));
    assert!(asked.query.is_empty(), "a delete with a filter: {asked:?}");
}

#[tokio::test]
async fn an_action_without_an_answer_is_ambiguous_too() {
    let fake = Fake::start(|_, _| Reply::Reset).await;
    let error =
        fake.client().act_on_droplet(DropletId(1), DropletAction::PowerCycle, &Leader).await.unwrap_err();
    assert_eq!((error.category(), fake.count()), ("ambiguous", 1));
}

#[tokio::test]
async fn a_tag_that_exists_is_fine_however_the_api_says_so() {
    let fake = Fake::start(|_, number| match number {
        0 => json(201, r#"{"tag": {"name": "egress-gateway"}}"#),
        1 => json(200, ""),
        2 => refusal(409, "conflict", "Tag exists"),
        3 => refusal(422, "unprocessable_entity", "Tag name already exists."),
        4 => json(400, r#"{"error": "bad", "messages": null, "root_causes": ["name is too odd"]}"#),
        _ => refusal(422, "unprocessable_entity", "The moon."),
    })
    .await;
    let client = fake.client();
    let tag = TagName::new("egress-gateway").unwrap();
    for expected in
        [TagCreation::Created, TagCreation::Created, TagCreation::AlreadyThere, TagCreation::AlreadyThere]
    {
        assert_eq!(client.ensure_tag(&tag, &Leader).await.unwrap(), expected);
    }
    let odd = client.ensure_tag(&tag, &Leader).await.unwrap_err();
    assert!(odd.to_string().contains("name is too odd"), "{odd}");
    assert_eq!(client.ensure_tag(&tag, &Leader).await.unwrap_err().category(), "unprocessable");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Fake::start(|_, _| json(200, DROPLET)).await;
    let location = format!("location: {}/v2/droplets/1\r\n", elsewhere.address);
    let fake = Fake::start(move |_, _| with_headers(301, &location, "")).await;
    let error = fake.client().droplet(DropletId(1)).await.unwrap_err();
    assert_eq!((error.category(), elsewhere.count()), ("unexpected_answer", 0));
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let mut flood = b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n{\"account\": {\"status\": \"".to_vec();
    flood.resize(17 * 1024 * 1024, b'x');
    let fake = Fake::start(move |_, _| Reply::Bytes(flood.clone())).await;
    let error = fake.client().account().await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test]
async fn a_create_whose_tls_handshake_fails_was_never_sent() {
    let fake = Fake::start(|_, _| json(202, DROPLET)).await;
    let client = client(&fake.address.replace("http://", "https://"));
    let error = create(&client).await.unwrap_err();
    assert_eq!((error.category(), error.retry(), fake.count()), ("unreachable", Retry::Soon, 0), "{error}");
}
