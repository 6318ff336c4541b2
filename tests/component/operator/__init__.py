"""The operator as a process against a real control plane; the tests play the kubelet."""
