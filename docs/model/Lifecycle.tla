------------------------------ MODULE Lifecycle ------------------------------
(* Written by `PYTHONPATH=services:tests python -m model.lifecycle` from      *)
(* services/orders/domain/lifecycle.py and the topology. Do not edit.         *)
Statuses == {"Cancelled", "Charging", "Completed", "Failed", "Pending", "Refunded", "Refunding", "Reserved"}
Terminal == {"Cancelled", "Completed", "Failed", "Refunded"}
ForWorker == {"order.cancelled.v1", "order.created.v1", "order.refund_due.v1", "order.stalled.v1"}
Transitions == {
  [from |-> "Pending", event |-> "stock_reserved", cancelled |-> FALSE, to |-> "Reserved", announces |-> "none"],
  [from |-> "Pending", event |-> "stock_reserved", cancelled |-> TRUE, to |-> "Reserved", announces |-> "none"],
  [from |-> "Pending", event |-> "stock_refused", cancelled |-> FALSE, to |-> "Failed", announces |-> "order.failed.v1"],
  [from |-> "Pending", event |-> "stock_refused", cancelled |-> TRUE, to |-> "Failed", announces |-> "order.failed.v1"],
  [from |-> "Pending", event |-> "stock_gone", cancelled |-> FALSE, to |-> "Failed", announces |-> "order.failed.v1"],
  [from |-> "Pending", event |-> "stock_gone", cancelled |-> TRUE, to |-> "Failed", announces |-> "order.failed.v1"],
  [from |-> "Pending", event |-> "cancel_requested", cancelled |-> FALSE, to |-> "Cancelled", announces |-> "order.cancelled.v1"],
  [from |-> "Pending", event |-> "cancel_requested", cancelled |-> TRUE, to |-> "Cancelled", announces |-> "order.cancelled.v1"],
  [from |-> "Reserved", event |-> "charge_started", cancelled |-> FALSE, to |-> "Charging", announces |-> "none"],
  [from |-> "Reserved", event |-> "charge_started", cancelled |-> TRUE, to |-> "Charging", announces |-> "none"],
  [from |-> "Reserved", event |-> "cancel_requested", cancelled |-> FALSE, to |-> "Cancelled", announces |-> "order.cancelled.v1"],
  [from |-> "Reserved", event |-> "cancel_requested", cancelled |-> TRUE, to |-> "Cancelled", announces |-> "order.cancelled.v1"],
  [from |-> "Charging", event |-> "payment_captured", cancelled |-> FALSE, to |-> "Completed", announces |-> "order.completed.v1"],
  [from |-> "Charging", event |-> "payment_captured", cancelled |-> TRUE, to |-> "Refunding", announces |-> "order.refund_due.v1"],
  [from |-> "Charging", event |-> "payment_declined", cancelled |-> FALSE, to |-> "Failed", announces |-> "order.failed.v1"],
  [from |-> "Charging", event |-> "payment_declined", cancelled |-> TRUE, to |-> "Cancelled", announces |-> "order.cancelled.v1"],
  [from |-> "Charging", event |-> "cancel_requested", cancelled |-> FALSE, to |-> "Charging", announces |-> "none"],
  [from |-> "Charging", event |-> "cancel_requested", cancelled |-> TRUE, to |-> "Charging", announces |-> "none"],
  [from |-> "Completed", event |-> "cancel_requested", cancelled |-> FALSE, to |-> "Refunding", announces |-> "order.refund_due.v1"],
  [from |-> "Completed", event |-> "cancel_requested", cancelled |-> TRUE, to |-> "Refunding", announces |-> "order.refund_due.v1"],
  [from |-> "Completed", event |-> "refund_requested", cancelled |-> FALSE, to |-> "Completed", announces |-> "order.refund_due.v1"],
  [from |-> "Completed", event |-> "refund_requested", cancelled |-> TRUE, to |-> "Completed", announces |-> "order.refund_due.v1"],
  [from |-> "Completed", event |-> "part_refunded", cancelled |-> FALSE, to |-> "Completed", announces |-> "none"],
  [from |-> "Completed", event |-> "part_refunded", cancelled |-> TRUE, to |-> "Completed", announces |-> "none"],
  [from |-> "Completed", event |-> "refund_confirmed", cancelled |-> FALSE, to |-> "Refunded", announces |-> "order.refunded.v1"],
  [from |-> "Completed", event |-> "refund_confirmed", cancelled |-> TRUE, to |-> "Refunded", announces |-> "order.refunded.v1"],
  [from |-> "Completed", event |-> "refund_declined", cancelled |-> FALSE, to |-> "Completed", announces |-> "none"],
  [from |-> "Completed", event |-> "refund_declined", cancelled |-> TRUE, to |-> "Completed", announces |-> "none"],
  [from |-> "Completed", event |-> "refund_dropped", cancelled |-> FALSE, to |-> "Completed", announces |-> "none"],
  [from |-> "Completed", event |-> "refund_dropped", cancelled |-> TRUE, to |-> "Completed", announces |-> "none"],
  [from |-> "Cancelled", event |-> "capture_recovered", cancelled |-> FALSE, to |-> "Refunding", announces |-> "order.refund_due.v1"],
  [from |-> "Cancelled", event |-> "capture_recovered", cancelled |-> TRUE, to |-> "Refunding", announces |-> "order.refund_due.v1"],
  [from |-> "Refunding", event |-> "part_refunded", cancelled |-> FALSE, to |-> "Refunding", announces |-> "none"],
  [from |-> "Refunding", event |-> "part_refunded", cancelled |-> TRUE, to |-> "Refunding", announces |-> "none"],
  [from |-> "Refunding", event |-> "refund_confirmed", cancelled |-> FALSE, to |-> "Refunded", announces |-> "order.refunded.v1"],
  [from |-> "Refunding", event |-> "refund_confirmed", cancelled |-> TRUE, to |-> "Refunded", announces |-> "order.refunded.v1"],
  [from |-> "Refunding", event |-> "refund_declined", cancelled |-> FALSE, to |-> "Refunding", announces |-> "none"],
  [from |-> "Refunding", event |-> "refund_declined", cancelled |-> TRUE, to |-> "Refunding", announces |-> "none"]
}
==============================================================================
