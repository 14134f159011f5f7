"""JUnit XML: a test case for each threshold and each invariant."""

from xml.etree import ElementTree as ET

from loadtest.result import RunResult


def document(result: RunResult) -> bytes:
    """Write the suite of one run."""
    suite = ET.Element("testsuite", name=f"loadtest.{result.scenario.name}", timestamp=result.began)
    for check in result.checks:
        case = _case(suite, "threshold", check.text)
        if check.value is None and check.holds:
            ET.SubElement(case, "skipped", message="not measured here")
        elif not check.holds:
            value = "not measured" if check.value is None else f"{check.value:g}"
            ET.SubElement(case, "failure", message=f"{check.text}, but was {value}")
    for finding in result.findings:
        case = _case(suite, "invariant", finding.invariant)
        if not finding.checked:
            ET.SubElement(case, "skipped", message="cannot be seen here")
        elif not finding.holds:
            message = f"broken {finding.broken} times"
            failure = ET.SubElement(case, "failure", message=message)
            failure.text = "\n".join(finding.examples)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("./testcase/failure"))))
    suite.set("skipped", str(len(suite.findall("./testcase/skipped"))))
    document: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document


def _case(suite: ET.Element, kind: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=f"{suite.get('name')}.{kind}", name=name)
