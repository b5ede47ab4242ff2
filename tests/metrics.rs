//! The endpoint for Prometheus and load balancers.
