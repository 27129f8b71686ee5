//! Which deployment is chosen among those with room: `routing_strategy`, `order` and prices.

use vorrang_scheduler::Deployment;

use super::*;

/// Two deployments with these parameters, and settings of the router.
fn two(first: &str, second: &str, router: &str) -> Loaded {
    let one = |params: &str| {
        format!(
            "- {{model_name: m, litellm_params: {{model: gpt-x, mock_response: hi, {params}}}}}\n"
        )
    };
    load(&format!(
        "model_list:\n{}{}router_settings: {{{router}}}\n",
        one(first),
        one(second)
    ))
}

fn scheduled(config: &Config) -> Vec<Deployment> {
    config.group_config(&config.groups[0]).deployments
}

#[test]
fn every_strategy_of_litellm_is_served() {
    let latency_based = |seconds, buffer| Strategy::LatencyBased {
        forget_after: Duration::from_secs(seconds),
        buffer,
    };
    let arguments = "routing_strategy_args: {ttl: 60, lowest_latency_buffer: 0.5}";
    for (settings, strategy) in [
        ("simple-shuffle", Strategy::SimpleShuffle),
        ("usage-based-routing", Strategy::UsageBased),
        ("usage-based-routing-v2", Strategy::UsageBased),
        ("least-busy", Strategy::LeastBusy),
        ("cost-based-routing", Strategy::CostBased),
        ("latency-based-routing", latency_based(600, 0.0)),
        (
            &format!("latency-based-routing, {arguments}"),
            latency_based(60, 0.5),
        ),
    ] {
        let loaded = with_model(&format!(
            "router_settings: {{routing_strategy: {settings}}}\n"
        ));
        let (warnings, config) = (loaded.warnings(), loaded.config);
        assert_eq!(config.strategy, strategy);
        assert_eq!(warnings, Vec::<String>::new(), "{settings}");
        let name = settings.split(',').next().unwrap();
        let shown = config.plan();
        let shown = shown.lines().next().unwrap();
        assert!(shown.contains(name), "{shown}");
    }
}

#[test]
fn strategies_and_arguments_without_effect_are_named() {
    for (settings, warning) in [
        ("routing_strategy: simple", "is taken as simple-shuffle"),
        (
            "routing_strategy: least-busy, routing_strategy_args: {ttl: 1}",
            "routing_strategy_args: this LiteLLM setting does nothing here",
        ),
        (
            "routing_strategy: latency-based-routing, routing_strategy_args: {max_latency_list_size: 3}",
            "max_latency_list_size: this LiteLLM setting does nothing here",
        ),
    ] {
        let warnings = with_model(&format!("router_settings: {{{settings}}}\n")).warnings();
        assert!(
            warnings.len() == 1 && warnings[0].contains(warning),
            "{warnings:?}"
        );
    }
    let negative = "router_settings: {routing_strategy: latency-based-routing, routing_strategy_args: {lowest_latency_buffer: -1}}\n";
    let error = error_with_model(negative);
    assert!(
        error.ends_with("expected a number of at least 0"),
        "{error}"
    );
}

#[test]
fn order_is_that_of_the_parameters_or_of_the_models_info() {
    let loaded = two("order: -2", "order: ~", "");
    let (warnings, config) = (loaded.warnings(), loaded.config);
    assert_eq!(warnings, Vec::<String>::new());
    let orders = |config: &Config| scheduled(config).into_iter().map(|one| one.order);
    assert!(orders(&config).eq([Some(-2), None]));
    assert!(config.plan().contains(", order -2\n"), "{}", config.plan());
    let in_info = "model_list:\n- {model_name: m, litellm_params: {model: gpt-x, mock_response: hi}, model_info: {order: '3'}}\n";
    assert!(orders(&load(in_info).config).eq([Some(3)]));
    let wrong = "model_list:\n- {model_name: m, litellm_params: {model: gpt-x, mock_response: hi, order: first}}\n";
    assert!(error(wrong).contains("order: expected a whole number"));
}

#[test]
fn prices_count_where_deployments_are_chosen_by_cost() {
    let both = "input_cost_per_token: 1e-7, output_cost_per_token: '4e-7'";
    let by_cost = "routing_strategy: cost-based-routing";
    let loaded = two(both, "output_cost_per_token: 0.25", by_cost);
    let (warnings, config) = (loaded.warnings(), loaded.config);
    assert_eq!(warnings, Vec::<String>::new());
    let prices = |config: &Config| scheduled(config).into_iter().map(|one| one.price);
    assert!(prices(&config).eq([Some(1e-7 + 4e-7), Some(0.25)]));
    assert!(
        config.plan().contains(", price 0.25\n"),
        "{}",
        config.plan()
    );
    let loaded = two(both, "", by_cost);
    let (warnings, config) = (loaded.warnings(), loaded.config);
    assert!(prices(&config).eq([Some(1e-7 + 4e-7), None]));
    assert!(
        warnings.len() == 1 && warnings[0].contains("is used after those that have a price"),
        "{warnings:?}"
    );
    let loaded = two(both, both, "");
    let (warnings, config) = (loaded.warnings(), loaded.config);
    assert!(prices(&config).eq([None, None]));
    assert!(
        warnings
            .iter()
            .all(|warning| warning.contains("costs are not counted")),
        "{warnings:?}"
    );
}
