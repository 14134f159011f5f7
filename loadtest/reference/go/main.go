// The Go service that `make bench` compares with: net/http, pgx v5, go-redis, slog, client_golang. It
// answers POST, GET and list as the order service does: same statements, same limiter script, same checks,
// and one log line, one counter and one histogram a request. It has no in-process cache, counts every
// request in Redis before it answers, and has no fallbacks.
//
// It reads the service's ORDERS_* variables. PEER_ADDRESS is where it listens, PEER_POOL its number of
// connections to PostgreSQL, PEER_SQL the folder of the service's statements, PEER_LUA its limiter script.
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"
)

const (
	maxID    = 1<<53 - 1
	maxBody  = 64 << 10
	policy   = "default"
	route    = "POST /api/orders"
	cached   = "orders:order:" // where the service keeps orders, too
	accepted = `{"orderId":%s,"status":"Pending","message":"Order is being processed"}`
)

var (
	newest     = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	idRE       = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	traceRE    = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$`)
	methodRE   = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,64}$`)
	numberRE   = regexp.MustCompile(`^(0|[1-9][0-9]*)(\.[0-9]+)?$`)
	keyRE      = regexp.MustCompile(`^[\x21\x23-\x2b\x2d-\x7e][\x21-\x2b\x2d-\x7e]{0,254}$`)
	nameRE     = regexp.MustCompile(`%\((\w+)\)s`)
	ended      = map[string]bool{"Completed": true, "Failed": true, "Cancelled": true, "Refunded": true}
	buckets    = []float64{.005, .01, .025, .05, .075, .1, .25, .3, .5, .75, 1, 2.5, 5, 7.5, 10}
	requests   = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "order_requests_total", Help: "Requests."}, []string{"action", "status"})
	durations  = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_server_request_duration_seconds", Help: "Duration.", Buckets: buckets}, []string{"method", "route", "status"})
	actions    = map[string]string{"/api/orders": "create", "/api/orders/{id}": "get", "/api/orders/user/{userId}": "list"}
	errTooMany = errors.New("rate limited")
)

// statement is one of the service's, with $n for psycopg's names.
type statement struct {
	sql   string
	names []string
}

func load(name string) statement {
	text, err := os.ReadFile(os.Getenv("PEER_SQL") + "/" + name + ".sql")
	if err != nil {
		panic(err)
	}
	place := map[string]int{}
	s := statement{}
	s.sql = nameRE.ReplaceAllStringFunc(string(text), func(m string) string {
		n := m[2 : len(m)-2]
		if place[n] == 0 {
			s.names = append(s.names, n)
			place[n] = len(s.names)
		}
		return "$" + strconv.Itoa(place[n])
	})
	return s
}

func (s statement) arguments(values map[string]any) []any {
	out := make([]any, len(s.names))
	for i, n := range s.names {
		out[i] = values[n]
	}
	return out
}

// exchange is one request: its ids, and what the log line tells.
type exchange struct {
	correlation, trace, span string
	status                   int
	user, order              int64
}

func (e *exchange) traceparent() string { return "00-" + e.trace + "-" + e.span + "-00" }

type exchangeKey struct{}

func of(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }

type recorder struct {
	http.ResponseWriter
	e *exchange
}

func (w *recorder) WriteHeader(status int) {
	w.e.status = status
	w.ResponseWriter.WriteHeader(status)
}

// observed surrounds a handler with ids, metrics and the log line.
func observed(log *slog.Logger, route string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		e := &exchange{status: 200}
		var fresh [40]byte
		rand.Read(fresh[:])
		text := hex.EncodeToString(fresh[:])
		if e.correlation = r.Header.Get("X-Correlation-ID"); !idRE.MatchString(e.correlation) {
			e.correlation = text[:32]
		}
		if m := traceRE.FindStringSubmatch(r.Header.Get("traceparent")); m != nil {
			e.trace, e.span = m[1], m[2]
		} else {
			e.trace, e.span = text[32:64], text[64:]
		}
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Correlation-ID", e.correlation)
		h.Set("traceparent", e.traceparent())
		next(&recorder{w, e}, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, e)))
		took := time.Since(began)
		status := strconv.Itoa(e.status)
		durations.WithLabelValues(r.Method, route, status).Observe(took.Seconds())
		requests.WithLabelValues(actions[route], outcome(e.status)).Inc()
		fields := []slog.Attr{
			slog.String("method", r.Method), slog.String("route", route), slog.Int("status", e.status),
			slog.Float64("duration_ms", math.Round(took.Seconds()*1e5)/100),
			slog.String("correlationId", e.correlation), slog.String("traceId", e.trace),
		}
		if e.user != 0 {
			fields = append(fields, slog.Int64("userId", e.user))
		}
		if e.order != 0 {
			fields = append(fields, slog.Int64("orderId", e.order))
		}
		log.LogAttrs(r.Context(), slog.LevelInfo, "request.completed", fields...)
	}
}

func outcome(status int) string {
	switch {
	case status < 400:
		return "success"
	case status == 404:
		return "not_found"
	case status == 409:
		return "conflict"
	case status == 429:
		return "rate_limited"
	case status >= 500:
		return "error"
	}
	return "validation_error"
}

func problem(w http.ResponseWriter, r *http.Request, status int, detail string) {
	e := of(r)
	body, _ := json.Marshal(map[string]any{
		"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail,
		"error": detail, "correlationId": e.correlation, "traceId": e.trace, "instance": r.URL.Path,
	})
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(body)
}

type server struct {
	db                 *pgxpool.Pool
	rdb                *redis.Client
	sha, cursorKey     string
	limit, windowMs    int64
	policyHeader       string
	stock              *stock
	accept, find, list statement
	answer             statement
	trusted            bool
}

// enter counts a request, and reads a key in the same round trip; too many: errTooMany.
func (s *server) enter(w http.ResponseWriter, ctx context.Context, principal, key string) (string, bool, error) {
	pipe := s.rdb.Pipeline()
	hit := pipe.EvalSha(ctx, s.sha, []string{"go:limit:" + principal}, s.limit, s.windowMs, 1)
	var read *redis.StringCmd
	if key != "" {
		read = pipe.Get(ctx, key)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return "", false, err
	}
	c, err := hit.Int64Slice()
	if err != nil {
		return "", false, err
	}
	allowed, previous, current, left := c[0] == 1, c[1], c[2], c[3]
	var remaining int64
	if allowed {
		remaining = max(0, s.limit-(previous*left/s.windowMs+current))
	}
	until := left
	if remaining == 0 {
		until = s.waitMs(previous, current, left)
	}
	seconds := min(max(1, (until+999)/1000), s.windowMs/1000)
	h := w.Header()
	h.Set("RateLimit-Policy", s.policyHeader)
	h.Set("RateLimit", `"default";r=`+strconv.FormatInt(remaining, 10)+";t="+strconv.FormatInt(seconds, 10))
	if !allowed {
		h.Set("Retry-After", strconv.FormatInt(seconds, 10))
		return "", false, errTooMany
	}
	if read == nil || read.Err() != nil {
		return "", false, nil
	}
	return read.Val(), true, nil
}

func (s *server) waitMs(previous, current, left int64) int64 {
	within := func(previous, room int64) int64 {
		if previous == 0 {
			return s.windowMs
		}
		return ((room+1)*s.windowMs+previous-1)/previous - 1
	}
	if room := s.limit - 1 - current; room >= 0 {
		return max(0, left-within(previous, room))
	}
	return left + max(0, s.windowMs-within(current, s.limit-1))
}

// refused answers an error of enter; false: there was none.
func refused(w http.ResponseWriter, r *http.Request, err error) bool {
	switch {
	case err == nil:
		return false
	case errors.Is(err, errTooMany):
		problem(w, r, 429, "Rate limit exceeded. Please retry later.")
	default:
		problem(w, r, 503, "Please retry later.")
	}
	return true
}

type newOrder struct {
	UserID        *int64          `json:"userId"`
	ProductID     *int64          `json:"productId"`
	Quantity      *int64          `json:"quantity"`
	Total         json.RawMessage `json:"total"`
	PaymentMethod *string         `json:"paymentMethod"`
}

// check returns the total with two decimals, or what is wrong.
func (o *newOrder) check() (string, string) {
	switch {
	case o.UserID == nil || *o.UserID < 1 || *o.UserID > maxID:
		return "", "userId: expected an integer from 1 to 2^53-1"
	case o.ProductID == nil || *o.ProductID < 1 || *o.ProductID > maxID:
		return "", "productId: expected an integer from 1 to 2^53-1"
	case o.Quantity == nil || *o.Quantity < 1 || *o.Quantity > 1000:
		return "", "quantity: expected an integer from 1 to 1000"
	case o.PaymentMethod == nil || !methodRE.MatchString(*o.PaymentMethod):
		return "", "paymentMethod: expected 1 to 64 of the characters A-Z a-z 0-9 _ . : -"
	}
	text := string(o.Total)
	if !numberRE.MatchString(text) {
		return "", "total: expected a number with at most two decimal places"
	}
	whole, cents, _ := strings.Cut(text, ".")
	for len(cents) > 2 && cents[len(cents)-1] == '0' {
		cents = cents[:len(cents)-1]
	}
	if len(cents) > 2 || len(whole) > 8 {
		return "", "total: expected a number > 0 and <= 99999999.99 with at most two decimal places"
	}
	cents = (cents + "00")[:2]
	if strings.Trim(whole+cents, "0") == "" {
		return "", "total: expected a number > 0"
	}
	return whole + "." + cents, ""
}

func (s *server) create(w http.ResponseWriter, r *http.Request) {
	e, ctx := of(r), r.Context()
	if r.Header.Get("Content-Type") != "application/json" {
		problem(w, r, 415, "Send the body as application/json in UTF-8.")
		return
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil || len(raw) > maxBody {
		problem(w, r, 413, "The body is larger than 64 KiB.")
		return
	}
	var o newOrder
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	wrong, total := "The body is not an order.", ""
	if err := decoder.Decode(&o); err == nil && !decoder.More() {
		total, wrong = o.check()
	}
	if wrong != "" {
		if _, _, err := s.enter(w, ctx, s.address(r), ""); refused(w, r, err) {
			return
		}
		problem(w, r, 400, wrong)
		return
	}
	e.user = *o.UserID
	principal := "user:" + strconv.FormatInt(e.user, 10)
	if _, _, err := s.enter(w, ctx, principal, ""); refused(w, r, err) {
		return
	}
	var key, fingerprint any = nil, []byte{}
	if header := r.Header.Get("Idempotency-Key"); header != "" {
		if !keyRE.MatchString(header) {
			problem(w, r, 400, "Send one Idempotency-Key of 1 to 255 visible ASCII characters.")
			return
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "%d\n%d\n%d\n%s\n%s", e.user, *o.ProductID, *o.Quantity, total, *o.PaymentMethod))
		key, fingerprint = header, sum[:]
	}
	if s.stock.insufficient(ctx, *o.ProductID, *o.Quantity) {
		problem(w, r, 400, "Insufficient inventory")
		return
	}
	rows, err := s.db.Query(ctx, s.accept.sql, s.accept.arguments(map[string]any{
		"principal": principal, "route": route, "key": key, "fingerprint": fingerprint,
		"body": accepted, "location": "/api/orders/%s", "etag": `"v1"`, "user_id": e.user,
		"product_id": *o.ProductID, "quantity": *o.Quantity, "total": total,
		"payment_method": *o.PaymentMethod, "correlation_id": e.correlation,
		"traceparent": e.traceparent(), "trace_id": e.trace,
	})...)
	if err == nil {
		var sleeps *bool
		if rows.Next() {
			err = rows.Scan(&e.order, &sleeps)
		}
		rows.Close()
		err = errors.Join(err, rows.Err())
	}
	h := w.Header()
	switch {
	case err != nil:
		problem(w, r, 503, "Please retry later.")
		return
	case e.order == 0:
		s.replay(w, r, principal, key, fingerprint.([]byte))
		return
	}
	id := strconv.FormatInt(e.order, 10)
	h.Set("Location", "/api/orders/"+id)
	h.Set("ETag", `"v1"`)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	w.WriteHeader(202)
	io.WriteString(w, strings.Replace(accepted, "%s", id, 1))
}

func (s *server) replay(w http.ResponseWriter, r *http.Request, principal string, key any, fingerprint []byte) {
	var known []byte
	var status int
	var body, location, etag string
	err := s.db.QueryRow(r.Context(), s.answer.sql, s.answer.arguments(map[string]any{
		"principal": principal, "route": route, "key": key,
	})...).Scan(&known, &status, &body, &location, &etag)
	switch {
	case err != nil:
		problem(w, r, 503, "Please retry later.")
	case !bytes.Equal(known, fingerprint):
		problem(w, r, 422, "This Idempotency-Key was used with another body.")
	default:
		h := w.Header()
		h.Set("Location", location)
		h.Set("ETag", etag)
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Type", "application/json")
		h.Set("Idempotency-Replayed", "true")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

type view struct {
	ID              int64       `json:"id"`
	UserID          int64       `json:"userId"`
	ProductID       int64       `json:"productId"`
	Quantity        int32       `json:"quantity"`
	Total           json.Number `json:"total"`
	Status          string      `json:"status"`
	CreatedAt       stamp       `json:"createdAt"`
	UpdatedAt       stamp       `json:"updatedAt"`
	Reason          *string     `json:"statusReason,omitempty"`
	CancelRequested bool        `json:"cancelRequested,omitempty"`
	Refunded        json.Number `json:"refunded,omitempty"`
	version         int32
}

// stamp is shown as the service shows it: with six digits of a second, or none.
type stamp struct{ time.Time }

func (t stamp) MarshalJSON() ([]byte, error) {
	layout := `"2006-01-02T15:04:05Z"`
	if t.Nanosecond() != 0 {
		layout = `"2006-01-02T15:04:05.000000Z"`
	}
	return t.UTC().AppendFormat(nil, layout), nil
}

// amount writes a sum of money with two decimals; nothing for NULL.
func amount(n pgtype.Numeric) json.Number {
	if n.Int == nil {
		return ""
	}
	cents := n.Int.Int64()
	for exp := n.Exp; exp > -2; exp-- {
		cents *= 10
	}
	for exp := n.Exp; exp < -2; exp++ {
		cents /= 10
	}
	b := strconv.AppendInt(nil, cents/100, 10)
	return json.Number(append(b, '.', byte('0'+cents/10%10), byte('0'+cents%10)))
}

// scan reads a row of find_order or list_orders; what find_order has beyond that is not shown.
func scan(row pgx.CollectableRow) (view, error) {
	var v view
	var total, refunded pgtype.Numeric
	targets := []any{
		&v.ID, &v.UserID, &v.ProductID, &v.Quantity, &total, &v.Status, &v.version,
		&v.CreatedAt.Time, &v.UpdatedAt.Time, &v.Reason, &v.CancelRequested, &refunded,
	}
	for len(targets) < len(row.FieldDescriptions()) {
		targets = append(targets, nil)
	}
	err := row.Scan(targets...)
	v.Total, v.Refunded = amount(total), amount(refunded)
	v.CancelRequested = v.CancelRequested && v.Status == "Charging"
	return v, err
}

func number(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 1 && n <= maxID
}

func (s *server) show(w http.ResponseWriter, r *http.Request) {
	e, ctx := of(r), r.Context()
	id, ok := number(r.PathValue("id"))
	key := ""
	if ok {
		key = cached + strconv.FormatInt(id, 10)
	}
	stored, known, err := s.enter(w, ctx, s.address(r), key)
	if refused(w, r, err) {
		return
	}
	if !ok {
		problem(w, r, 400, "id: expected an integer from 1 to 2^53-1")
		return
	}
	e.order = id
	if !known {
		if stored, known, err = s.fetch(ctx, id, key); err != nil {
			problem(w, r, 503, "Please retry later.")
			return
		}
	}
	parts := strings.SplitN(stored, " ", 4)
	if !known || len(parts) != 4 {
		problem(w, r, 404, "There is no such order.")
		return
	}
	tag := `"v` + parts[0] + `"`
	h := w.Header()
	h.Set("ETag", tag)
	h.Set("Cache-Control", "private, no-cache")
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(304)
		return
	}
	h.Set("Content-Type", "application/json")
	io.WriteString(w, parts[3])
}

func (s *server) fetch(ctx context.Context, id int64, key string) (string, bool, error) {
	rows, _ := s.db.Query(ctx, s.find.sql, id)
	v, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", false, nil
	} else if err != nil {
		return "", false, err
	}
	body, _ := json.Marshal(v)
	terminal, ttl := 0, 2*time.Second
	if ended[v.Status] {
		terminal, ttl = 1, 300*time.Second
	}
	stored := fmt.Sprintf("%d %d %d %s", v.version, v.UserID, terminal, body)
	s.rdb.SetNX(ctx, key, stored, ttl)
	return stored, true, nil
}

func (s *server) page(w http.ResponseWriter, r *http.Request) {
	e, ctx := of(r), r.Context()
	user, ok := number(r.PathValue("userId"))
	principal := s.address(r)
	if ok {
		e.user, principal = user, "user:"+strconv.FormatInt(user, 10)
	}
	if _, _, err := s.enter(w, ctx, principal, ""); refused(w, r, err) {
		return
	}
	query := r.URL.Query()
	size, page := int64(20), int64(1)
	if text := query.Get("pageSize"); text != "" {
		n, good := number(text)
		size, ok = n, ok && good && n <= 100
	}
	if text := query.Get("page"); text != "" {
		n, good := number(text)
		page, ok = n, ok && good && n*size <= 10_000
	}
	at, before := newest, int64(maxID)
	if sealed := query.Get("cursor"); sealed != "" && ok {
		at, before, ok = s.unseal(sealed, user)
	}
	if !ok {
		problem(w, r, 400, "A parameter is invalid.")
		return
	}
	rows, _ := s.db.Query(ctx, s.list.sql, s.list.arguments(map[string]any{
		"user_id": user, "before_at": at, "before_id": before, "limit": size + 1, "offset": (page - 1) * size,
	})...)
	views, err := pgx.CollectRows(rows, scan)
	if err != nil {
		problem(w, r, 503, "Please retry later.")
		return
	}
	h := w.Header()
	if int64(len(views)) > size {
		views = views[:size]
		last := views[size-1]
		h.Set("Link", fmt.Sprintf(`</api/orders/user/%d?cursor=%s&pageSize=%d>; rel="next"`, user, s.seal(last.CreatedAt.Time, last.ID, user), size))
	}
	if views == nil {
		views = []view{}
	}
	body, err := json.Marshal(views)
	if err != nil {
		problem(w, r, 500, "The service failed.")
		return
	}
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Content-Type", "application/json")
	w.Write(body)
}

func (s *server) mac(payload []byte, user int64) []byte {
	h := hmac.New(sha256.New, []byte(s.cursorKey))
	fmt.Fprintf(h, "orders.cursor\x00%d\x00", user)
	h.Write(payload)
	return h.Sum(nil)[:16]
}

func (s *server) seal(at time.Time, id, user int64) string {
	b := append(make([]byte, 0, 33), 1)
	b = binary.BigEndian.AppendUint64(b, uint64(at.UnixMicro()))
	b = binary.BigEndian.AppendUint64(b, uint64(id))
	return base64.URLEncoding.EncodeToString(append(b, s.mac(b, user)...))
}

func (s *server) unseal(cursor string, user int64) (time.Time, int64, bool) {
	b, err := base64.URLEncoding.DecodeString(cursor)
	if err != nil || len(b) != 33 || !hmac.Equal(b[17:], s.mac(b[:17], user)) {
		return time.Time{}, 0, false
	}
	return time.UnixMicro(int64(binary.BigEndian.Uint64(b[1:]))).UTC(), int64(binary.BigEndian.Uint64(b[9:])), true
}

func (s *server) address(r *http.Request) string {
	if hops := r.Header.Get("X-Forwarded-For"); hops != "" && s.trusted {
		return "address:" + strings.TrimSpace(hops[strings.LastIndexByte(hops, ',')+1:])
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return "address:" + host
}

// stock asks Inventory once a second and product, for 300 ms at most; unknown is not too little.
type stock struct {
	url    string
	client http.Client
	flight singleflight.Group
	lock   sync.RWMutex
	known  map[int64]level
}

type level struct {
	until     time.Time
	available int64
}

func (s *stock) insufficient(ctx context.Context, product, quantity int64) bool {
	s.lock.RLock()
	l, ok := s.known[product]
	s.lock.RUnlock()
	if !ok || time.Now().After(l.until) {
		v, _, _ := s.flight.Do(strconv.FormatInt(product, 10), func() (any, error) {
			l := level{time.Now().Add(time.Second), s.ask(product)}
			s.lock.Lock()
			if len(s.known) > 10_000 {
				clear(s.known)
			}
			s.known[product] = l
			s.lock.Unlock()
			return l, nil
		})
		l = v.(level)
	}
	return l.available < quantity
}

func (s *stock) ask(product int64) int64 {
	answer, err := s.client.Get(fmt.Sprintf("%s/availability/%d?quantity=1", s.url, product))
	if err != nil {
		return math.MaxInt64
	}
	defer answer.Body.Close()
	var level struct {
		Available int64 `json:"available"`
	}
	if answer.StatusCode != 200 || json.NewDecoder(answer.Body).Decode(&level) != nil {
		return math.MaxInt64
	}
	return level.Available
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func integer(name string, otherwise int64) int64 {
	if text := os.Getenv(name); text != "" {
		return must(strconv.ParseInt(text, 10, 64))
	}
	return otherwise
}

func main() {
	ctx := context.Background()
	config := must(pgxpool.ParseConfig(os.Getenv("ORDERS_DATABASE_URL")))
	config.MaxConns = int32(integer("PEER_POOL", 4))
	config.MinConns = config.MaxConns
	for name, value := range map[string]string{
		"application_name": "go", "statement_timeout": "5000", "lock_timeout": "1000",
		"idle_in_transaction_session_timeout": "10000", "plan_cache_mode": "force_generic_plan", "timezone": "UTC",
	} {
		config.ConnConfig.RuntimeParams[name] = value
	}
	script := must(os.ReadFile(os.Getenv("PEER_LUA")))
	sum := sha1.Sum(script)
	window := integer("ORDERS_RATE_LIMIT_WINDOW_S", 60)
	s := &server{
		db: must(pgxpool.NewWithConfig(ctx, config)), rdb: redis.NewClient(must(redis.ParseURL(os.Getenv("ORDERS_REDIS_URL")))),
		sha: hex.EncodeToString(sum[:]), cursorKey: os.Getenv("ORDERS_CURSOR_SECRET"),
		limit: integer("ORDERS_RATE_LIMIT_REQUESTS", 100), windowMs: window * 1000,
		accept: load("accept_order"), find: load("find_order"), list: load("list_orders"), answer: load("find_answer"),
		trusted: os.Getenv("ORDERS_API_TRUSTED_PROXIES") != "0",
	}
	s.policyHeader = fmt.Sprintf(`"default";q=%d;w=%d`, s.limit, window)
	s.stock = &stock{url: os.Getenv("ORDERS_INVENTORY_URL"), known: map[int64]level{}}
	s.stock.client.Timeout = 300 * time.Millisecond
	must(s.rdb.ScriptLoad(ctx, string(script)).Result())
	prometheus.MustRegister(requests, durations)
	host, _ := os.Hostname()
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil)).With("Application", "OrderService", "host", host, "process", "go")
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/orders", observed(log, "/api/orders", s.create))
	mux.HandleFunc("GET /api/orders/{id}", observed(log, "/api/orders/{id}", s.show))
	mux.HandleFunc("GET /api/orders/user/{userId}", observed(log, "/api/orders/user/{userId}", s.page))
	mux.Handle("GET /metrics", promhttp.Handler())
	server := &http.Server{Addr: os.Getenv("PEER_ADDRESS"), Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		server.Shutdown(ctx)
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		panic(err)
	}
	time.Sleep(50 * time.Millisecond)
}
