//! The old stack: four nodes in two racks, and what each of them has.

/// The node's roles; what stands first on a line is its zone.
pub(crate) type Shape = [(&'static str, &'static [&'static str]); 4];

/// The order of its services: those that others need come first.
pub(crate) const ORDER: [&str; 13] = [
    "zookeeper",
    "kafka",
    "elasticsearch-warm",
    "elasticsearch-hot",
    "elasticsearch-master",
    "redis",
    "kibana",
    "nginx",
    "elastalert",
    "curator",
    "filebeat",
    "metricbeat",
    "heartbeat",
];

/// Everything, as docs/examples/cluster.toml has it.
pub(crate) const WHOLE: Shape = [
    (
        "rack-a",
        &[
            "elasticsearch-master",
            "elasticsearch-hot",
            "elasticsearch-warm",
            "zookeeper",
            "kafka",
            "redis",
            "nginx",
            "filebeat",
            "metricbeat",
        ],
    ),
    (
        "rack-a",
        &[
            "elasticsearch-master",
            "elasticsearch-hot",
            "elasticsearch-warm",
            "zookeeper",
            "kafka",
            "redis",
            "kibana",
            "filebeat",
        ],
    ),
    (
        "rack-b",
        &[
            "elasticsearch-master",
            "elasticsearch-hot",
            "elasticsearch-warm",
            "zookeeper",
            "kafka",
            "kibana",
            "filebeat",
        ],
    ),
    (
        "rack-b",
        &[
            "elasticsearch-hot",
            "elasticsearch-warm",
            "redis",
            "nginx",
            "elastalert",
            "curator",
            "filebeat",
            "heartbeat",
        ],
    ),
];
