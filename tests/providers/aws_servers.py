"""moto's server, and a server in front of it that fails as AWS does."""

import http.client
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3

from tests.providers.provider_servers import free_port, wait_for_port

REGION = "eu-central-1"
IMAGE = "ami-12c6146b"  # one of those that moto knows
READS = frozenset({"DescribeAutoScalingGroups", "DescribeNodegroup", "DescribeUpdate"})


CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "operator",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def serve_moto(log: Path) -> Iterator[int]:
    """Run moto's server in a process of its own, and say at which port."""
    port = free_port()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for_port(port, "moto", seconds=20)
            yield port
        finally:
            process.terminate()
            process.wait()


@dataclass
class Fault:
    """What happens to the calls of one operation.

    Attributes:
        operation: As AWS names it.
        status: Of the answer; 0 closes the connection without one.
        body: Of the answer.
        headers: Of the answer.
        delay: Seconds before anything happens.
        forward: Let moto answer, after the delay.
        times: How many calls are left; None for all.
    """

    operation: str
    status: int = 0
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    forward: bool = False
    times: int | None = None


class Front:
    """Forwards to moto what no fault stands against, and remembers all calls.

    Attributes:
        calls: Operations, oldest first; a retry is a call.
        sent: Body of each call.
    """

    def __init__(self, target: int) -> None:
        self.calls: list[str] = []
        self.sent: list[str] = []
        self.ending = threading.Event()
        self._target = target
        self._faults: list[Fault] = []

    @contextmanager
    def serve(self) -> Iterator["Front"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = False
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield self
        self.ending.set()
        server.shutdown()
        thread.join()
        server.server_close()

    @property
    def writes(self) -> list[str]:
        return [call for call in self.calls if call not in READS]

    def fail(self, operation: str, **how: Any) -> None:
        self._faults.append(Fault(operation, **how))

    def refuse(
        self, operation: str, code: str, *, status: int = 400, times: int | None = None
    ) -> None:
        """Answer as the service of that operation words an error."""
        if "Nodegroup" in operation or operation == "DescribeUpdate":
            body = f'{{"message": "no {operation} now"}}'
            self.fail(
                operation, status=status, body=body, headers={"x-amzn-ErrorType": code}, times=times
            )
            return
        body = (
            '<ErrorResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><Error>'
            f"<Type>Sender</Type><Code>{code}</Code><Message>no {operation} now</Message>"
            "</Error><RequestId>r</RequestId></ErrorResponse>"
        )
        self.fail(operation, status=status, body=body, times=times)

    def recover(self) -> None:
        self._faults.clear()

    def forget(self) -> None:
        self.calls.clear()
        self.sent.clear()

    def _fault(self, operation: str) -> Fault | None:
        for fault in self._faults:
            if fault.operation == operation and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        front = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                operation = _operation(self.command, self.path, body)
                front.calls.append(operation)
                front.sent.append(body.decode())
                fault = front._fault(operation)
                if fault is not None and front.ending.wait(fault.delay):
                    self.close_connection = True
                elif fault is None or fault.forward:
                    self._answer(*front._forward(self.command, self.path, body, self.headers))
                elif fault.status:
                    self._answer(fault.status, fault.headers, fault.body.encode())
                else:
                    self.close_connection = True

            do_GET = do_POST

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def _forward(
        self, method: str, path: str, body: bytes, headers: Any
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._target, timeout=10)
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            answer = connection.getresponse()
            kept = {
                k: v for k, v in answer.getheaders() if k.lower().startswith(("content-t", "x-"))
            }
            return answer.status, kept, answer.read()
        finally:
            connection.close()


def _operation(method: str, path: str, body: bytes) -> str:
    if "/update-config" in path:
        return "UpdateNodegroupConfig"
    if "/updates/" in path:
        return "DescribeUpdate"
    if "/node-groups/" in path:
        return "DescribeNodegroup"
    return parse_qs(body.decode()).get("Action", [f"{method} {path}"])[0]


class Account:
    """What an administrator does in the account, past the front and the operator."""

    def __init__(self, port: int) -> None:
        made: Any = boto3.session.Session(
            aws_access_key_id="admin", aws_secret_access_key="admin", region_name=REGION
        )
        url = f"http://127.0.0.1:{port}"
        self.autoscaling = made.client("autoscaling", endpoint_url=url)
        self.eks = made.client("eks", endpoint_url=url)
        self.ec2 = made.client("ec2", endpoint_url=url)

    def close(self) -> None:
        for client in (self.autoscaling, self.eks, self.ec2):
            client.close()

    def add_group(
        self, name: str, *, low: int = 0, high: int = 5, desired: int = 0, **tags: str
    ) -> str:
        self.autoscaling.create_launch_configuration(
            LaunchConfigurationName=name, ImageId=IMAGE, InstanceType="t3.micro"
        )
        self.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchConfigurationName=name,
            MinSize=low,
            MaxSize=high,
            DesiredCapacity=desired,
            AvailabilityZones=[f"{REGION}a"],
            Tags=[
                {
                    "ResourceId": name,
                    "ResourceType": "auto-scaling-group",
                    "Key": key,
                    "Value": value,
                    "PropagateAtLaunch": False,
                }
                for key, value in tags.items()
            ],
        )
        return name

    def add_nodegroup(self, cluster: str, name: str, *, low: int, high: int, desired: int) -> str:
        """Return the name of the Auto Scaling group behind it, which moto only names."""
        subnet = self.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        role = "arn:aws:iam::123456789012:role/eks"
        self.eks.create_cluster(
            name=cluster, roleArn=role, resourcesVpcConfig={"subnetIds": [subnet]}
        )
        made = self.eks.create_nodegroup(
            clusterName=cluster,
            nodegroupName=name,
            nodeRole=role,
            subnets=[subnet],
            scalingConfig={"minSize": low, "maxSize": high, "desiredSize": desired},
        )
        behind: str = made["nodegroup"]["resources"]["autoScalingGroups"][0]["name"]
        return self.add_group(behind, low=low, high=high, desired=desired)

    def group(self, name: str) -> dict[str, Any]:
        found = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        group: dict[str, Any] = found["AutoScalingGroups"][0]
        return group

    def bounds(self, name: str) -> tuple[int, int]:
        group = self.group(name)
        return group["MinSize"], group["MaxSize"]

    def tags(self, name: str) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self.group(name)["Tags"]}

    def tag(self, name: str, key: str, value: str) -> None:
        of_group = {"ResourceId": name, "ResourceType": "auto-scaling-group"}
        tag = {**of_group, "Key": key, "Value": value, "PropagateAtLaunch": False}
        self.autoscaling.create_or_update_tags(Tags=[tag])

    def untag(self, name: str, key: str) -> None:
        of_group = {"ResourceId": name, "ResourceType": "auto-scaling-group"}
        self.autoscaling.delete_tags(Tags=[{**of_group, "Key": key}])

    def scaling(self, cluster: str, name: str) -> dict[str, int]:
        found = self.eks.describe_nodegroup(clusterName=cluster, nodegroupName=name)
        scaling: dict[str, int] = found["nodegroup"]["scalingConfig"]
        return scaling
