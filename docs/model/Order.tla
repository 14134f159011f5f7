------------------------------- MODULE Order -------------------------------
(***************************************************************************)
(* One order, from its acceptance to its end: PostgreSQL with a standby,   *)
(* the relay, the queue order-processing, workers, the sweeper, Inventory  *)
(* and Payment; a customer who may cancel and a supporter who may refund.  *)
(* The life cycle itself is in Lifecycle.tla, written from the code.       *)
(* README.md says how to read and to run this.                             *)
(***************************************************************************)
EXTENDS Integers, Sequences, FiniteSets, TLC, Lifecycle

CONSTANTS
  Workers,        \* the worker processes
  Faults,         \* how many crashes, lost connections, time-outs and repeated publications
  Cancellations,  \* how often the customer asks for a cancellation
  SupportRefunds, \* how often support asks for a part of the money
  Promotions,     \* how often a standby becomes the primary; it may lack the last commits
  Sweeper,        \* whether orders that stand still are emitted again
  AttemptId,      \* where a capture's key comes from: "nonce" (ours), "row" or "call" (wrong)
  AckFirst,       \* TRUE is wrong: a message is acknowledged before its work is committed
  CancelIsSeen    \* FALSE is wrong: a cancellation changes nothing that a worker compares

VARIABLES
  db,       \* PostgreSQL's primary: the order's row, the outbox and the inbox
  standby,  \* what a standby has of it
  queue,    \* ids of the messages in order-processing
  worker,   \* what each worker holds
  stock,    \* Inventory: the state of the order's reservation
  captures, \* Payment: every capture it was asked for, and its answer
  refunds,  \* Payment: every refund it was asked for, and its answer
  late,     \* calls that nobody waits for any more, but that may still arrive
  keys,     \* how many keys were invented (none under AttemptId = "nonce")
  left      \* what may still happen: faults, cancellations, support's refunds, promotions

vars == <<db, standby, queue, worker, stock, captures, refunds, late, keys, left>>
outside == <<stock, captures, refunds, keys>>

Total == 2       \* what the order costs, in the smallest unit that support refunds
None == -1
NonceKey == 0    \* the key that derives from the order's nonce
Stalled == 0     \* the id of the sweeper's messages; each of them is a new one

----------------------------------------------------------------------------
(* The order's row. *)

Sum(entries, counted) ==
  LET RECURSIVE From(_)
      From(i) == IF i > Len(entries) THEN 0
                 ELSE From(i + 1) + (IF entries[i].outcome \in counted THEN entries[i].amount ELSE 0)
  IN From(1)

Requested(row) == Sum(row.refunds, {"unknown", "approved"})
Refunded(row) == Sum(row.refunds, {"approved"})

(* The number of the oldest refund whose outcome is unknown. *)
OpenRefund(row) ==
  LET open == {i \in 1..Len(row.refunds) : row.refunds[i].outcome = "unknown"}
  IN IF open = {} THEN None ELSE CHOOSE i \in open : \A j \in open : i <= j

NewRow == [status |-> "Pending", version |-> 1, cancelled |-> FALSE, reservation |-> "none",
           attempt |-> None, refunds |-> <<>>, refundDeclined |-> FALSE]

(* Ended, or stuck because Payment declined a refund. *)
Ended(row) == row.status \in Terminal \/ (row.status = "Refunding" /\ row.refundDeclined)

OwesStock(row) ==
  \/ row.status \in Terminal /\ row.reservation = "held"
  \/ row.status = "Refunded" /\ row.reservation = "committed"

OwesWork(row) ==
  \/ ~Ended(row)
  \/ OwesStock(row)
  \/ row.status = "Completed" /\ OpenRefund(row) # None

----------------------------------------------------------------------------
(* Commits. A transition raises the version and writes its message, in one commit. *)

Promoted == Promotions - left.promotions
MessageId(version) == 100 * Promoted + version

Change(status, event, cancelled) == CHOOSE c \in Transitions :
  c.from = status /\ c.event = event /\ c.cancelled = cancelled

HasEffect(status, event, cancelled) == \E c \in Transitions :
  c.from = status /\ c.event = event /\ c.cancelled = cancelled

Moved(row, event, changed) ==
  [changed EXCEPT !.status = Change(row.status, event, row.cancelled).to,
                  !.version = row.version + 1]

Announced(row, event) ==
  IF Change(row.status, event, row.cancelled).announces \in ForWorker
  THEN {MessageId(row.version + 1)} ELSE {}

(* Whether the row is still what the worker saw: compare and set. *)
Unmoved(seen) ==
  /\ db.row.version = seen.version
  /\ db.row.status = seen.status
  /\ CancelIsSeen => db.row.cancelled = seen.cancelled

----------------------------------------------------------------------------
(* Calls to the outside. Each is one atomic step there, idempotent under its key. *)

Call(kind, key, amount) == [kind |-> kind, key |-> key, amount |-> amount]

(* What a worker asks the outside for an order that it sees in this state; "none": nothing. *)
NextCall(row) ==
  CASE row.status = "Pending" -> Call("reserve", 0, 0)
    [] row.status = "Charging" ->
         Call("capture", IF AttemptId = "call" THEN keys + 1 ELSE row.attempt, 0)
    [] row.status \notin {"Pending", "Reserved", "Charging"} /\ OpenRefund(row) # None ->
         Call("refund", OpenRefund(row), row.refunds[OpenRefund(row)].amount)
    [] row.status = "Completed" /\ OpenRefund(row) = None /\ row.reservation = "held" ->
         Call("commit", 0, 0)
    [] row.status # "Completed" /\ OpenRefund(row) = None /\ OwesStock(row) ->
         Call(IF row.status = "Cancelled" THEN "return, find" ELSE "return", 0, 0)
    [] OTHER -> Call("none", 0, 0)

CapturedSum == Total * Cardinality({c \in captures : c.approved})
RefundedSum ==
  LET approved == {r \in refunds : r.approved}
      RECURSIVE Of(_)
      Of(set) == IF set = {} THEN 0 ELSE LET r == CHOOSE r \in set : TRUE IN r.amount + Of(set \ {r})
  IN Of(approved)

(* Every way in which the outside may take a call: its state afterwards, and its answer. *)
Stock(state, answer) == [stock |-> state, captures |-> captures, refunds |-> refunds, answer |-> answer]

Capture(key) ==
  LET known == {c \in captures : c.key = key}
      After(c) == [stock |-> stock, captures |-> captures \cup {c}, refunds |-> refunds,
                   answer |-> IF c.approved THEN "captured" ELSE "declined"]
  IN IF known # {} THEN {After(c) : c \in known}
     ELSE {After([key |-> key, approved |-> yes]) : yes \in BOOLEAN}

Refund(number, amount) ==
  LET known == {r \in refunds : r.number = number}
      After(r) == [stock |-> stock, captures |-> captures, refunds |-> refunds \cup {r},
                   answer |-> IF r.approved THEN "refunded" ELSE "declined"]
      Refused == [stock |-> stock, captures |-> captures, refunds |-> refunds, answer |-> "conflict"]
  IN CASE \E r \in known : r.amount # amount -> {Refused}
       [] known # {} -> {After(r) : r \in known}
       [] OTHER -> {After([number |-> number, amount |-> amount, approved |-> yes]) : yes \in BOOLEAN}

(* Give the stock back, whichever way it is held. *)
Returned == CASE stock \in {"none", "reserved"} -> "released"
              [] stock = "committed" -> "returned"
              [] OTHER -> stock

Serve(call) ==
  CASE call.kind = "reserve" -> IF stock = "none" THEN {Stock("reserved", "reserved"), Stock("none", "refused")}
                                ELSE {Stock(stock, stock)}
    [] call.kind = "commit" -> LET state == IF stock = "reserved" THEN "committed" ELSE stock
                               IN {Stock(state, state)}
    [] call.kind = "return" -> {Stock(Returned, Returned)}
    (* Payment is asked, too, whether it took the money in work that a failover lost. *)
    [] call.kind = "return, find" ->
         {Stock(Returned, IF [key |-> NonceKey, approved |-> TRUE] \in captures THEN "captured" ELSE Returned)}
    [] call.kind = "capture" -> Capture(call.key)
    [] call.kind = "refund" -> Refund(call.key, call.amount)

Take(call, effect) ==
  /\ stock' = effect.stock /\ captures' = effect.captures /\ refunds' = effect.refunds
  /\ keys' = IF call.kind = "capture" /\ AttemptId = "call" /\ keys < 3 THEN keys + 1 ELSE keys

----------------------------------------------------------------------------
(* The worker. *)

Idle == [at |-> "idle", message |-> None, seen |-> NewRow, answer |-> "none"]
Become(w, changes) == worker' = [worker EXCEPT ![w] = changes]
Look(w, row) == Become(w, [worker[w] EXCEPT !.at = "act", !.seen = row, !.answer = "none"])

(* Acknowledge the message: it is handled, or dead-lettered. *)
Acknowledge(w) == Become(w, Idle)

(* Read the order, unless this very message was worked on before. *)
Receive(w) ==
  /\ worker[w].at = "idle"
  /\ \E m \in queue :
       /\ queue' = queue \ {m}
       /\ IF m \in db.inbox THEN UNCHANGED worker
          ELSE Become(w, [at |-> "act", message |-> m, seen |-> db.row, answer |-> "none"])
  /\ UNCHANGED <<db, standby, outside, late, left>>

Ask(w) ==
  LET call == NextCall(worker[w].seen) IN
  /\ worker[w].at = "act" /\ call.kind # "none"
  /\ \E effect \in Serve(call) :
       /\ Take(call, effect)
       /\ Become(w, [worker[w] EXCEPT !.at = "commit", !.answer = effect.answer])
  /\ UNCHANGED <<db, standby, queue, late, left>>

(* Move the order on, unless others moved it: then look at it again. *)
Advance(w, event, changed) ==
  LET seen == worker[w].seen
      next == [Moved(seen, event, changed) EXCEPT
                 !.refundDeclined = @ \/ (event = "refund_declined" /\ seen.status = "Refunding")]
  IN IF Unmoved(seen)
     THEN /\ db' = [db EXCEPT !.row = [next EXCEPT !.cancelled = db.row.cancelled],
                              !.outbox = @ \cup Announced(seen, event)]
          /\ Look(w, next)
     ELSE db' = db /\ Look(w, db.row)

(* Note what became of the stock; the message is done with. *)
SettleStock(w, state) ==
  LET seen == worker[w].seen IN
  IF db.row.version = seen.version /\ db.row.reservation = seen.reservation
  THEN /\ db' = [db EXCEPT !.row.reservation = state,
                           !.inbox = @ \cup ({worker[w].message} \ {Stalled})]
       /\ Acknowledge(w)
  ELSE db' = db /\ Look(w, db.row)

SettleRefund(w, outcome, event) ==
  LET seen == worker[w].seen
  IN Advance(w, event, [seen EXCEPT !.refunds[OpenRefund(seen)].outcome = outcome])

CommitReservation(w, seen, answer) ==
  CASE answer = "refused" -> Advance(w, "stock_refused", [seen EXCEPT !.reservation = "held"])
    [] answer \in {"reserved", "committed"} ->
         Advance(w, "stock_reserved", [seen EXCEPT !.reservation = "held"])
    [] OTHER -> Advance(w, "stock_gone", [seen EXCEPT !.reservation = "released"])

CommitRefund(w, seen, answer) ==
  CASE answer = "refunded" ->
         SettleRefund(w, "approved",
           IF Refunded(seen) + seen.refunds[OpenRefund(seen)].amount = Total
           THEN "refund_confirmed" ELSE "part_refunded")
    [] answer = "declined" -> SettleRefund(w, "declined", "refund_declined")
    [] OTHER -> db' = db /\ Acknowledge(w)

CommitStock(w, seen, answer) ==
  CASE seen.status = "Cancelled" /\ answer = "captured" ->
         Advance(w, "capture_recovered", [seen EXCEPT !.attempt = NonceKey])
    [] seen.status # "Completed" -> SettleStock(w, answer)
    [] answer = "committed" -> SettleStock(w, "committed")
    [] db.row.version = seen.version -> db' = db /\ Acknowledge(w)  \* the stock of a paid order is lost
    [] OTHER -> db' = db /\ Look(w, db.row)

(* Commit what the answer of the outside means. *)
Commit(w) ==
  LET seen == worker[w].seen
      answer == worker[w].answer
  IN
  /\ worker[w].at = "commit"
  /\ CASE seen.status = "Pending" -> CommitReservation(w, seen, answer)
       [] seen.status = "Charging" ->
            Advance(w, IF answer = "captured" THEN "payment_captured" ELSE "payment_declined", seen)
       [] OpenRefund(seen) # None -> CommitRefund(w, seen, answer)
       [] OTHER -> CommitStock(w, seen, answer)
  /\ UNCHANGED <<standby, queue, outside, late, left>>

(* The attempt is committed before Payment is asked. *)
StartCharge(w) ==
  LET seen == worker[w].seen IN
  /\ worker[w].at = "act" /\ seen.status = "Reserved"
  /\ keys' = IF AttemptId = "row" /\ keys < 3 THEN keys + 1 ELSE keys
  /\ Advance(w, "charge_started",
             [seen EXCEPT !.attempt = IF AttemptId = "nonce" THEN NonceKey ELSE keys'])
  /\ UNCHANGED <<standby, queue, stock, captures, refunds, late, left>>

(* So is a refund of all that is left. It does not raise the version. *)
StartRefund(w) ==
  LET seen == worker[w].seen IN
  /\ worker[w].at = "act" /\ seen.status = "Refunding"
  /\ OpenRefund(seen) = None /\ ~seen.refundDeclined
  /\ IF Unmoved(seen) /\ Requested(db.row) = Requested(seen) /\ Requested(seen) < Total
     THEN db' = [db EXCEPT !.row.refunds =
                   Append(@, [amount |-> Total - Requested(seen), outcome |-> "unknown"])]
     ELSE db' = db
  /\ Look(w, db'.row)
  /\ UNCHANGED <<standby, queue, outside, late, left>>

(* The order needs nothing more. *)
Finish(w) ==
  LET seen == worker[w].seen IN
  /\ worker[w].at = "act" /\ NextCall(seen).kind = "none"
  /\ seen.status # "Reserved" /\ (seen.status = "Refunding" => seen.refundDeclined)
  /\ db' = [db EXCEPT !.inbox = @ \cup ({worker[w].message} \ {Stalled})]
  /\ Acknowledge(w)
  /\ UNCHANGED <<standby, queue, outside, late, left>>

Work(w) ==
  Receive(w) \/ Ask(w) \/ Commit(w) \/ StartCharge(w) \/ StartRefund(w) \/ Finish(w)

----------------------------------------------------------------------------
(* The relay and the sweeper. *)

Publish ==
  /\ \E m \in db.outbox : queue' = queue \cup {m} /\ db' = [db EXCEPT !.outbox = @ \ {m}]
  /\ UNCHANGED <<standby, worker, outside, late, left>>

(* Looks when the order's own messages are gone: deadlines are longer than all retries. *)
Sweep ==
  /\ Sweeper /\ OwesWork(db.row) /\ db.outbox = {} /\ queue = {}
  /\ db' = [db EXCEPT !.outbox = {Stalled}]
  /\ UNCHANGED <<standby, queue, worker, outside, late, left>>

----------------------------------------------------------------------------
(* People. *)

Cancel ==
  LET row == db.row IN
  /\ left.cancellations > 0 /\ HasEffect(row.status, "cancel_requested", FALSE) /\ ~row.cancelled
  /\ db' = [db EXCEPT
       !.row = [row EXCEPT
         !.status = Change(row.status, "cancel_requested", FALSE).to,
         !.cancelled = TRUE,
         !.version = IF CancelIsSeen \/ row.status # "Charging" THEN @ + 1 ELSE @,
         !.reservation = IF row.status = "Pending" THEN "held" ELSE @],
       !.outbox = @ \cup Announced(row, "cancel_requested")]
  /\ left' = [left EXCEPT !.cancellations = @ - 1]
  /\ UNCHANGED <<standby, queue, worker, outside, late>>

AskForRefund ==
  LET row == db.row IN
  /\ left.supportRefunds > 0 /\ row.status = "Completed" /\ Requested(row) < Total
  /\ db' = [db EXCEPT
       !.row = Moved(row, "refund_requested",
                     [row EXCEPT !.refunds = Append(@, [amount |-> 1, outcome |-> "unknown"])]),
       !.outbox = @ \cup Announced(row, "refund_requested")]
  /\ left' = [left EXCEPT !.supportRefunds = @ - 1]
  /\ UNCHANGED <<standby, queue, worker, outside, late>>

----------------------------------------------------------------------------
(* Faults. *)

Spend == left.faults > 0 /\ left' = [left EXCEPT !.faults = @ - 1]

Redelivered(w) == IF AckFirst THEN queue ELSE queue \cup {worker[w].message}

(* A worker dies, or gives up waiting; what it had asked for may be done or not. *)
Crash(w) ==
  /\ worker[w].at # "idle" /\ Spend
  /\ queue' = Redelivered(w) /\ Become(w, Idle)
  /\ late' \in {late} \cup (IF worker[w].at = "act" /\ NextCall(worker[w].seen).kind # "none"
                            THEN {late \cup {NextCall(worker[w].seen)}} ELSE {})
  /\ UNCHANGED <<db, standby, outside>>

(* The connection to the queue is lost: the worker goes on, and another gets its message. *)
Disconnect(w) ==
  /\ worker[w].at # "idle" /\ Spend
  /\ queue' = Redelivered(w)
  /\ UNCHANGED <<db, standby, worker, outside, late>>

(* The relay dies between publishing and deleting. *)
PublishTwice ==
  /\ Spend /\ \E m \in db.outbox : queue' = queue \cup {m}
  /\ UNCHANGED <<db, standby, worker, outside, late>>

Arrive ==
  /\ \E call \in late : /\ late' = late \ {call}
                        /\ \E effect \in Serve(call) : Take(call, effect)
  /\ UNCHANGED <<db, standby, queue, worker, left>>

Replicate ==
  /\ left.promotions > 0 /\ standby # db
  /\ standby' = db
  /\ UNCHANGED <<db, queue, worker, outside, late, left>>

Empty == [row |-> NewRow, outbox |-> {}, inbox |-> {}]

(* The standby becomes the primary, without the commits that it lacks. *)
Promote ==
  /\ left.promotions > 0 /\ left' = [left EXCEPT !.promotions = @ - 1]
  /\ db' = standby
  /\ standby' = IF left'.promotions = 0 THEN Empty ELSE standby  \* not looked at any more
  /\ UNCHANGED <<queue, worker, outside, late>>

----------------------------------------------------------------------------
Accepted == [row |-> NewRow, outbox |-> {1}, inbox |-> {}]

Init ==
  /\ db = Accepted
  /\ standby = IF Promotions = 0 THEN Empty ELSE Accepted
  /\ queue = {} /\ late = {} /\ keys = 0
  /\ worker = [w \in Workers |-> Idle]
  /\ stock = "none" /\ captures = {} /\ refunds = {}
  /\ left = [faults |-> Faults, cancellations |-> Cancellations,
             supportRefunds |-> SupportRefunds, promotions |-> Promotions]

Next ==
  \/ \E w \in Workers : Work(w) \/ Crash(w) \/ Disconnect(w)
  \/ Publish \/ PublishTwice \/ Sweep \/ Arrive \/ Replicate \/ Promote
  \/ Cancel \/ AskForRefund

(* Processes that can go on do; nobody has to cancel, crash or be promoted. *)
Fairness == WF_vars(Publish) /\ WF_vars(Sweep) /\ \A w \in Workers : WF_vars(Work(w))

Spec == Init /\ [][Next]_vars /\ Fairness

----------------------------------------------------------------------------
(* What is promised. *)

TypeOK ==
  /\ db.row.status \in Statuses
  /\ stock \in {"none", "reserved", "committed", "released", "returned"}
  /\ db.row.reservation \in {"none", "held", "committed", "released", "returned"}
  /\ \A w \in Workers : worker[w].at \in {"idle", "act", "commit"}

OneCapture == Cardinality({c \in captures : c.approved}) <= 1

RefundsWithinCapture == RefundedSum <= CapturedSum

(* Holds at once while no promotion loses commits. *)
UnpaidEndKeepsNoMoney ==
  db.row.status \in {"Failed", "Cancelled", "Refunded"} => CapturedSum = RefundedSum

(* Holds in spite of lost commits, unless a lost capture arrives late: see README.md. *)
SettledEndKeepsNoMoney ==
  /\ db.row.status \in {"Failed", "Cancelled", "Refunded"}
  /\ db.row.reservation # "held"
  => CapturedSum = RefundedSum

CompletedIsPaid ==
  db.row.status = "Completed" => CapturedSum = Total /\ RefundedSum <= Requested(db.row)

(* A cancellation that was accepted decides how the order ends. *)
CancellationIsKept ==
  db.row.cancelled => db.row.status \in {"Charging", "Cancelled", "Refunding", "Refunded"}

(* In the end. *)
EveryOrderEnds == <>[]Ended(db.row)

UnpaidEndHoldsNoStock ==
  <>[](db.row.status \in {"Failed", "Cancelled", "Refunded"} => stock \notin {"reserved", "committed"})

PaidEndHasItsStock == <>[](db.row.status = "Completed" => stock = "committed")

Symmetric == Permutations(Workers)
=============================================================================
