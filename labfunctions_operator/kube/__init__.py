"""The cluster as the operator sees it: a bounded client, and caches kept fresh by informers."""
