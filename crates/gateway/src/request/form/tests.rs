use super::*;

const TYPE: &str = "multipart/form-data; boundary=XX";

fn read(body: impl Into<Bytes>) -> Result<Form, Problem> {
    Form::read(body.into(), Some(&HeaderValue::from_static(TYPE)))
}

fn field(name: &str, value: &str) -> String {
    format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(name: &str, content: &str) -> String {
    format!(
        "--XX\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\n{content}\r\n"
    )
}

fn sent(form: &Form, edits: &Edits) -> String {
    String::from_utf8(
        form.rewritten(Endpoint::Transcriptions, "up", edits)
            .concat(),
    )
    .unwrap()
}

#[test]
fn a_form_changes_only_in_model_priority_and_timeout() {
    let sound = "in a line --XX, \r\n--X\r\n\n \u{e9}";
    let parts = |model: &str| {
        [
            file("file", sound),
            field("model", model),
            field("empty", ""),
        ]
    };
    let steering = [field("priority", "-3"), field("timeout", "2.5")];
    let body = format!(
        "preamble\r\n{}{}--XX--\r\nepilogue",
        parts("mine").concat(),
        steering.concat()
    );
    let form = read(body).unwrap();
    assert_eq!(form.model(), Ok(Some("mine".into())));
    let fields = form.fields().unwrap();
    let fields: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, json)| (name.as_str(), json.as_str()))
        .collect();
    let there = "\"\"";
    assert_eq!(
        fields,
        [
            ("file", there),
            ("model", there),
            ("empty", there),
            ("priority", "-3"),
            ("timeout", "2.5")
        ]
    );
    let expected = format!("{}--XX--\r\n", parts("up").concat());
    assert_eq!(sent(&form, &Edits::default()), expected);
}

#[test]
fn pieces_are_slices_of_the_body_which_is_kept_once() {
    let body = Bytes::from(format!(
        "{}--XX--",
        [file("file", "sound"), field("model", "m")].concat()
    ));
    let form = read(body.clone()).unwrap();
    let pieces = form.rewritten(Endpoint::Transcriptions, "up", &Edits::default());
    let within = |piece: &&Bytes| body.as_ptr_range().contains(&piece.as_ptr());
    assert_eq!((pieces.len(), pieces.iter().filter(within).count()), (3, 2));
}

#[test]
fn a_model_that_is_not_in_the_form_is_added() {
    let form = read(format!("{}--XX--\r\n", file("file", "sound"))).unwrap();
    assert_eq!(form.model(), Ok(None));
    let again = read(sent(&form, &Edits::default())).unwrap();
    assert_eq!(again.model(), Ok(Some("up".into())));
}

#[test]
fn defaults_are_fields_unless_the_form_has_them_and_dropped_ones_are_left_out() {
    let edits = Edits {
        defaults: vec![
            ("language".into(), "\"de\"".into()),
            ("temperature".into(), "0.5".into()),
            ("max_tokens".into(), "5".into()),
        ],
        drops: vec!["prompt".into()],
        ..Edits::default()
    };
    let fields = [
        field("model", "m"),
        field("temperature", "0"),
        field("prompt", "x"),
    ];
    let form = read(format!("{}--XX--", fields.concat())).unwrap();
    let again = read(sent(&form, &edits)).unwrap();
    let names: Vec<String> = again.parts.iter().map(|part| part.name.clone()).collect();
    assert_eq!(names, ["model", "temperature", "language"]);
    let language = again.parts.last().unwrap();
    assert_eq!(again.text(language).as_deref(), Ok("de"));
}

#[test]
fn streams_are_asked_for_as_sdks_write_it() {
    for (text, json) in [
        ("true", "true"),
        ("True", "true"),
        ("false", "false"),
        ("", "false"),
        ("yes", "\"yes\""),
    ] {
        let form = read(format!("{}--XX--", field("stream", text))).unwrap();
        assert_eq!(form.fields().unwrap()[0].1, json, "{text}");
    }
}

#[test]
fn malformed_forms_are_refused() {
    let model = field("model", "m");
    for body in [
        String::new(),
        "--XX".into(),
        "--XX\r\n".into(),
        "--XX\r\n--XX--".into(),
        "--XX\r\n\r\nno headers\r\n--XX--".into(),
        model.clone(),
        format!("{model}--XXY--"),
        format!("{model}--XX--more"),
        format!("{model}--XX more\r\n\r\n--XX--"),
        // Delimiters for parsers that end lines at a line feed.
        format!(
            "{}--XX--",
            file(
                "file",
                "\n--XX\nContent-Disposition: form-data; name=\"model\"\n\nother"
            )
        ),
        format!("{}--XX--", model.replace("\r\n", "\n")),
        format!(
            "--XX\r\nA: {}\r\n\r\n\r\n--XX--",
            "a".repeat(LONGEST_HEAD_BYTES)
        ),
        format!("{}--XX--", model.repeat(MAX_FIELDS + 1)),
    ] {
        let problem = read(body.clone()).unwrap_err();
        assert_eq!(problem.status().as_u16(), 400, "{body}");
        assert!(problem.to_string().contains("Invalid form"), "{problem}");
    }
    let texts = [
        file("model", "m"),
        field("model", &"m".repeat(LONGEST_TEXT_BYTES + 1)),
    ];
    for body in texts {
        let form = read(format!("{body}--XX--")).unwrap();
        let problem = form.model().unwrap_err();
        assert!(problem.to_string().contains("'model'"), "{problem}");
    }
    for kind in [
        "application/json",
        "multipart/mixed; boundary=XX",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"a\\\"b\"",
        "multipart/form-data; boundary=a; boundary=b",
    ] {
        let kind = HeaderValue::from_static(kind);
        let problem = Form::read(Bytes::new(), Some(&kind)).unwrap_err();
        assert!(problem.to_string().contains("with a boundary"), "{problem}");
    }
    assert!(Form::read(Bytes::new(), None).is_err());
}

proptest::proptest! {
    #[test]
    fn any_pieces_of_forms_are_a_form_or_a_clear_refusal(
        pieces in proptest::collection::vec(proptest::sample::select(&[
            "--XX", "--", "\r\n", "\n", "XX", "\r\n--XX\r\n", "\r\n--XX--", ": ", "Content-Disposition: form-data; name=\"",
            "model", "priority", "\"", "\r\n\r\n", "7", ";", " ", "=", "x",
        ][..]), 0..24),
    ) {
        match read(pieces.concat()) {
            Err(problem) => proptest::prop_assert_eq!(problem.status().as_u16(), 400),
            Ok(form) => {
                let sent = sent(&form, &Edits::default());
                let again = read(sent.clone()).unwrap();
                proptest::prop_assert_eq!(again.model(), Ok(Some("up".into())));
                let names = again.parts.iter().map(|part| part.name.as_str());
                proptest::prop_assert!(names.into_iter().all(|name| name != "priority"), "{}", sent);
            }
        }
    }
}
