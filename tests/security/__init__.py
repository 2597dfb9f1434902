"""Threats of the promises page, each as a black-box test against the running sidecar."""
