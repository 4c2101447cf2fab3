"""Look for known vulnerabilities of the packages that are installed here.

    python tests/audit.py [WORDS FOR pip-audit]        exit code 1 if there are some

Where no service for vulnerabilities can be reached nothing is known, which is told, and is no failure: a mirror of the package index
answers every question with "not found", which pip-audit by itself takes for "none".
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

SERVICES = ("pypi", "osv")  # asked one after the other until one answers

UNREACHABLE = ("ConnectionError", "ConnectionRefused", "Timeout", "HTTPError", "ServiceError")


def audit(ask: Callable[[str], dict[str, Any] | str]) -> tuple[int, list[str]]:
    """An exit code, and lines that say what was found.

    Args:
        ask: the report of pip-audit by a service, as JSON has it, or why there is none.
    """
    lines = []
    for service in SERVICES:
        report = ask(service)
        if isinstance(report, str):
            lines.append(f"{service} cannot be reached: {report}")
            continue
        packages = report["dependencies"]
        known = [package for package in packages if "skip_reason" not in package]
        if not known:
            lines.append(
                f"{service} knows none of {len(packages)} packages: it is a mirror without vulnerabilities, or not there"
            )
            continue
        found = [(package, vulnerability) for package in known for vulnerability in package["vulns"]]
        for package, vulnerability in found:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            lines.append(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}")
        lines.append(f"{len(found)} known vulnerabilities in {len(known)} of {len(packages)} packages, by {service}")
        return int(bool(found)), lines
    return 0, [*lines, "no known vulnerability was looked for: nothing answers here"]


def report_of(service: str, words: Sequence[str]) -> dict[str, Any] | str:
    """What pip-audit says, or why it says nothing."""
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off", "--skip-editable", "--timeout=15"]
    done = subprocess.run([*command, f"--vulnerability-service={service}", *words], capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
    if any(word in done.stderr for word in UNREACHABLE):
        return last
    sys.exit(f"pip-audit has failed: {last}")


if __name__ == "__main__":
    code, lines = audit(lambda service: report_of(service, sys.argv[1:]))
    print("\n".join(lines))
    sys.exit(code)
