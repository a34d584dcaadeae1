//! An instant query of Prometheus, by its HTTP API: `GET /api/v1/query?query=…`.

use host::http::escape;
use scenarios::plan::PromqlAsk;
use serde::Deserialize;
use serde_json::Value;

use super::answer::begins;

/// The path of a query, below the path of the server's base URL.
pub(super) fn path(base: &str, query: &str) -> String {
    let base = base.trim_end_matches('/');
    format!("{base}/api/v1/query?query={}", escape(query))
}

#[derive(Deserialize)]
struct Body {
    status: String,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Value,
}

/// Whether an answer yields one number that is within the limits.
pub(super) fn judge(ask: &PromqlAsk, status: u16, body: &[u8]) -> Result<(), String> {
    let number = number(status, body)?;
    if number.is_nan() {
        return Err("the query yields NaN, which is within no limits".to_owned());
    }
    match (ask.above, ask.below) {
        (Some(above), _) if number <= above => Err(format!(
            "the query yields {number}, and above {above} is wanted"
        )),
        (_, Some(below)) if number >= below => Err(format!(
            "the query yields {number}, and below {below} is wanted"
        )),
        _ => Ok(()),
    }
}

fn number(status: u16, body: &[u8]) -> Result<f64, String> {
    let Ok(read) = serde_json::from_slice::<Body>(body) else {
        return Err(format!(
            "status {status}, and what comes is no answer of a query API: {}",
            begins(body)
        ));
    };
    if read.status != "success" {
        let (kind, error) = (&read.error_type, &read.error);
        return Err(format!("the server refuses the query: {kind}: {error}"));
    }
    if !read.warnings.is_empty() {
        let warnings = read.warnings.join("; ");
        return Err(format!(
            "the server warns that the number may not be the whole truth: {warnings}"
        ));
    }
    let Some(Data { kind, result }) = read.data else {
        return Err("the server says success, and no result".to_owned());
    };
    let sample = match (kind.as_str(), &result) {
        ("scalar", sample) => sample,
        ("vector", Value::Array(samples)) => match samples.as_slice() {
            [only] => &only["value"],
            [] => {
                return Err(
                    "the query yields no sample: where a series may be absent, add `or vector(0)`"
                        .to_owned(),
                );
            }
            many => {
                return Err(format!(
                    "the query yields {} samples: aggregate them to one, as sum(…) does",
                    many.len()
                ));
            }
        },
        (kind, _) => {
            return Err(format!(
                "the query yields a {kind}, and a scalar or a vector of one sample is wanted"
            ));
        }
    };
    // [instant, "number"]: a text, so that NaN and infinities can be said.
    let text = sample[1].as_str();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("what should be a sample is {sample}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use scenarios::plan::Web;

    fn ask(above: Option<f64>, below: Option<f64>) -> PromqlAsk {
        PromqlAsk {
            web: Web {
                url: "http://127.0.0.1:9090".to_owned(),
                headers: [].into(),
                ca_pem: None,
            },
            query: "up".to_owned(),
            above,
            below,
        }
    }

    fn vector(samples: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#)
    }

    fn sample(value: &str) -> String {
        format!(r#"{{"metric":{{"job":"a"}},"value":[1435781451.781,"{value}"]}}"#)
    }

    fn scalar(value: &str) -> String {
        format!(
            r#"{{"status":"success","data":{{"resultType":"scalar","result":[1435781451.781,"{value}"]}}}}"#
        )
    }

    #[track_caller]
    fn fails(body: &str, words: &[&str]) {
        let error = judge(&ask(None, Some(1.0)), 200, body.as_bytes()).unwrap_err();
        for word in words {
            assert!(error.contains(word), "`{word}` in {error}");
        }
    }

    #[test]
    fn a_scalar_or_one_sample_within_the_limits_is_good() {
        let one = vector(&sample("0.5"));
        for body in [one.as_str(), &scalar("0.5")] {
            for (above, below) in [(None, Some(1.0)), (Some(0.0), None), (Some(0.0), Some(1.0))] {
                assert_eq!(judge(&ask(above, below), 200, body.as_bytes()), Ok(()));
            }
        }
    }

    #[test]
    fn a_limit_itself_is_outside_and_the_number_is_said() {
        let at = |value: &str| judge(&ask(Some(0.0), Some(1.0)), 200, scalar(value).as_bytes());
        assert_eq!(
            at("1"),
            Err("the query yields 1, and below 1 is wanted".to_owned())
        );
        assert_eq!(
            at("0"),
            Err("the query yields 0, and above 0 is wanted".to_owned())
        );
        assert_eq!(at("1e-9"), Ok(()));
        assert!(at("+Inf").unwrap_err().contains("inf"), "{:?}", at("+Inf"));
        assert!(at("-Inf").is_err());
    }

    #[test]
    fn nothing_several_and_nan_are_no_number() {
        fails(&vector(""), &["no sample", "or vector(0)"]);
        fails(
            &vector(&format!("{},{}", sample("0"), sample("0"))),
            &["2 samples", "sum"],
        );
        fails(&scalar("NaN"), &["NaN"]);
    }

    #[test]
    fn other_shapes_are_named() {
        let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        fails(matrix, &["a matrix"]);
        let text = r#"{"status":"success","data":{"resultType":"string","result":[1,"x"]}}"#;
        fails(text, &["a string"]);
        fails(r#"{"status":"success"}"#, &["no result"]);
        fails(&scalar("much"), &["\"much\""]);
        fails(
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}"#,
            &["what should be a sample"],
        );
        // A histogram sample has no `value`.
        fails(
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}"#,
            &["what should be a sample"],
        );
    }

    #[test]
    fn errors_and_warnings_of_the_server_are_repeated() {
        let refused = r#"{"status":"error","errorType":"bad_data","error":"1:5: parse error"}"#;
        fails(refused, &["refuses", "bad_data: 1:5: parse error"]);
        let warned = scalar("0").replacen('{', r#"{"warnings":["remote read failed"],"#, 1);
        fails(&warned, &["warns", "remote read failed"]);
        // An info is about the query, not about the number.
        let informed = scalar("0").replacen('{', r#"{"infos":["might not be a counter"],"#, 1);
        assert_eq!(
            judge(&ask(None, Some(1.0)), 200, informed.as_bytes()),
            Ok(())
        );
    }

    #[test]
    fn what_is_not_the_api_is_said_to_be_none() {
        let ask = ask(None, Some(1.0));
        let error = judge(&ask, 502, b"<html>Bad Gateway</html>").unwrap_err();
        assert!(
            error.contains("status 502") && error.contains("<html>Bad Gateway"),
            "{error}"
        );
    }

    #[test]
    fn a_query_is_escaped_below_the_base_path() {
        assert_eq!(
            path("/", "sum(rate(a[1m])) + 1"),
            "/api/v1/query?query=sum%28rate%28a%5B1m%5D%29%29%20%2B%201"
        );
        assert_eq!(path("/prom/", "up"), "/prom/api/v1/query?query=up");
    }
}
