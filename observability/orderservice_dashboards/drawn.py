"""Generates a dashboard's JSON for Grafana."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    logs,
    loki,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from orderservice_dashboards.panels import SERVICE_SERIES, Dashboard, Panel, Query, Variable
from orderservice_observability.objectives import select

TAG: Final = "orders"
HEIGHT: Final = {"stat": 5, "bargauge": 7, "table": 7, "timeseries": 7, "logs": 9}
COLUMNS: Final = 24
SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
LOGS: Final = models.DataSourceRef(type_val="loki", uid="${logs}")
_BUILDERS: Final[dict[str, Any]] = {
    "timeseries": timeseries.Panel,
    "stat": stat.Panel,
    "bargauge": bargauge.Panel,
    "table": table.Panel,
    "logs": logs.Panel,
}


def written(dashboard: Dashboard) -> str:
    """Return the JSON text as it is committed."""
    encode = json.dumps  # noqa: TID251 the encoder that Grafana's library brings is of this kind
    return encode(drawn(dashboard), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def drawn(dashboard: Dashboard) -> models.Dashboard:
    """Return a dashboard: variables, links to the others and to the runbook, rows of panels."""
    builder = (
        build.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.description)
        .tags([TAG])
        .time("now-3h", "now")
        .refresh("30s")
        .timezone("utc")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(
            build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(build.DatasourceVariable("logs").label("Logs").type("loki"))
    )
    for variable in dashboard.variables:
        builder.with_variable(_variable(variable))
    builder.with_variable(_runbooks())
    for link in _links():
        builder.link(link)
    for annotation in (_alerts(), _deploys(), _load_tests()):
        builder.annotation(annotation)
    return _placed(builder, dashboard).build()


def _variable(variable: Variable) -> build.QueryVariable:
    builder = (
        build.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(SOURCE)
        .query(variable.query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    return builder.multi(True).include_all(True).all_value(".*") if variable.several else builder


def _runbooks() -> build.TextBoxVariable:
    """Return the variable for the runbook's address, which the JSON cannot know."""
    return (
        build.TextBoxVariable("runbooks")
        .label("Runbooks")
        .description("Address of the folder that holds runbook.md.")
        .default_value("https://docs.invalid/observability")
        .hide(models.VariableHide.HIDE_VARIABLE)
    )


def _links() -> Iterator[build.DashboardLink]:
    yield (
        build.DashboardLink("Orders")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )
    yield (
        build.DashboardLink("Runbook")
        .type(models.DashboardLinkType.LINK)
        .url("${runbooks}/runbook.md")
        .target_blank(True)
    )


def _alerts() -> build.AnnotationQuery:
    """Return annotations that mark on every panel when an alert began to fire."""
    return (
        build.AnnotationQuery()
        .name("Alerts")
        .datasource(SOURCE)
        .enable(True)
        .icon_color("red")
        .expr('ALERTS{alertstate="firing",namespace=~"$namespace",service=~"$service"}')
    )


def _deploys() -> build.AnnotationQuery:
    """Return annotations that mark when a version first appeared: a roll-out began."""
    builds = f"count by (version, revision) ({select('orders_build_info', *SERVICE_SERIES)}"
    return (
        build.AnnotationQuery()
        .name("Deployments")
        .datasource(SOURCE)
        .enable(True)
        .icon_color("blue")
        .expr(f"{builds}) unless {builds} offset 5m)")
    )


def _load_tests() -> build.AnnotationQuery:
    """Return the annotations that load tests send to Grafana (`LOADTEST_GRAFANA_URL`)."""
    return (
        build.AnnotationQuery()
        .name("Load tests")
        .datasource(models.DataSourceRef(type_val="grafana", uid="-- Grafana --"))
        .enable(True)
        .icon_color("purple")
        .target(
            build.AnnotationTarget().limit(100).match_any(False).tags(["loadtest"]).type("tags")
        )
    )


def _placed(builder: build.Dashboard, dashboard: Dashboard) -> build.Dashboard:
    """Place panels from left to right, in one row of the grid after the other."""
    top, number = 0, 1
    for row in dashboard.rows:
        builder.with_row(build.Row(row.title).grid_pos(models.GridPos(1, COLUMNS, 0, top)))
        top += 1
        for line in _lines(row.panels):
            left, height = 0, max(HEIGHT[panel.kind] for panel in line)
            for panel in line:
                position = models.GridPos(height, panel.width, left, top)
                builder.with_panel(_panel(panel).id(number).grid_pos(position))
                left, number = left + panel.width, number + 1
            top += height
    return builder


def _lines(panels: tuple[Panel, ...]) -> Iterator[list[Panel]]:
    line: list[Panel] = []
    for panel in panels:
        if sum(item.width for item in line) + panel.width > COLUMNS:
            yield line
            line = []
        line.append(panel)
    yield line


def _panel(panel: Panel) -> Any:
    builder = (
        _BUILDERS[panel.kind]()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(LOGS if panel.kind == "logs" else SOURCE)
        .thresholds(_thresholds(panel))
    )
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        builder.with_target(_target(panel, query).ref_id(letter))
    if panel.words:
        builder.mappings([_words(panel.words)])
    return _STYLES[panel.kind](builder, panel)


def _target(panel: Panel, query: Query) -> prometheus.Dataquery | loki.Dataquery:
    if panel.kind == "logs":
        return loki.Dataquery().expr(query.expr).legend_format(query.legend).query_type("range")
    builder = prometheus.Dataquery().expr(query.expr).legend_format(query.legend)
    if panel.kind == "table":
        return builder.instant().format(PromQueryFormat.TABLE)
    if query.exemplars:
        builder.exemplar(True)
    return builder.instant() if panel.kind == "bargauge" else builder.range()


def _thresholds(panel: Panel) -> build.ThresholdsConfig:
    steps = chain([(None, panel.below)], panel.steps)
    return (
        build.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value, colour) for value, colour in steps])
    )


def _words(words: dict[int, str]) -> models.ValueMap:
    return models.ValueMap(
        {
            str(value): models.ValueMappingResult(text=text, index=index)
            for index, (value, text) in enumerate(words.items())
        }
    )


def _lines_style(builder: timeseries.Panel, panel: Panel) -> timeseries.Panel:
    builder.fill_opacity(20 if panel.stacked else 5).line_width(1)
    builder.show_points(kinds.VisibilityMode.NEVER).min(0)
    builder.legend(
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(kinds.LegendDisplayMode.LIST)
        .placement(kinds.LegendPlacement.BOTTOM)
    )
    builder.tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI))
    if panel.stacked:
        builder.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    if panel.steps:
        style = common.GraphThresholdsStyleConfig().mode(kinds.GraphTresholdsStyleMode.DASHED)
        builder.thresholds_style(style)
    return builder


def _number_style(builder: stat.Panel, panel: Panel) -> stat.Panel:
    builder.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    builder.color_mode(
        kinds.BigValueColorMode.BACKGROUND if panel.steps else kinds.BigValueColorMode.VALUE
    )
    return builder.graph_mode(kinds.BigValueGraphMode.NONE)


def _bars_style(builder: bargauge.Panel, _panel: Panel) -> bargauge.Panel:
    builder.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    builder.orientation(kinds.VizOrientation.HORIZONTAL).min(0)
    return builder.display_mode(kinds.BarGaugeDisplayMode.BASIC)


def _table_style(builder: table.Panel, _panel: Panel) -> table.Panel:
    """Show the labels as columns; the value of each row is 1 and hidden."""
    hidden = {"Time": True, "Value": True}
    builder.show_header(True)
    return builder.with_transformation(
        models.DataTransformerConfig("organize", options={"excludeByName": hidden})
    )


def _logs_style(builder: logs.Panel, _panel: Panel) -> logs.Panel:
    builder.show_time(True).wrap_log_message(True).prettify_log_message(False)
    return builder.enable_log_details(True).sort_order(kinds.LogsSortOrder.DESCENDING)


_STYLES: Final[dict[str, Any]] = {
    "logs": _logs_style,
    "timeseries": _lines_style,
    "stat": _number_style,
    "bargauge": _bars_style,
    "table": _table_style,
}
