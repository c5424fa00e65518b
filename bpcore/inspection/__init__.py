"""What a network does while it trains: statistics of every layer, neurons that do not learn, and alarms with advice."""

from bpcore.inspection.alarms import Alarm
from bpcore.inspection.inspector import Inspector
from bpcore.inspection.look import inspect
from bpcore.inspection.report import InspectionReport, LayerReport
from bpcore.inspection.statistics import Statistics

__all__ = ["Alarm", "InspectionReport", "Inspector", "LayerReport", "Statistics", "inspect"]
