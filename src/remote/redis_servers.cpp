// Slot map, redirections and repairs.
#include "remote/redis_servers.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <system_error>
#include <utility>

#include "os/thread.hpp"
#include "remote/shown.hpp"

namespace penstock::detail {

namespace {

using Kind = RedisReply::Kind;

constexpr std::uint64_t kTableMost = std::uint64_t{16} << 20U;  // largest answer that is a list

RedisOutcome nobody() {
    return {RedisFault::Away, {}, "no sentinel has named a master yet"};
}

bool is_number(const RedisReply& reply, long long least, long long most) {
    return reply.kind == Kind::Integer && reply.integer >= least && reply.integer <= most;
}

}  // namespace

RedisServers::RedisServers(RedisSettings settings, TierTally& tally)
    : settings_(std::move(settings)), tally_(tally) {
    if (has_sentinels()) return;
    for (const Endpoint& endpoint : settings_.servers.endpoints) {
        nodes_.push_back(std::make_shared<RedisNode>(endpoint, settings_.timing, cancel_));
    }
}

RedisServers::~RedisServers() {
    cancel();
    if (thread_.joinable()) thread_.join();
}

void RedisServers::cancel() noexcept {
    const std::lock_guard lock(mutex_);
    cancel_.cancel();
    wake_.notify_all();
}

RedisOutcome RedisServers::start(const Wait* trial) {
    RedisOutcome outcome;
    if (trial != nullptr) outcome = attempt(trial);
    if (outcome.fault == RedisFault::Refused) return outcome;
    {
        const std::lock_guard lock(mutex_);
        wants_map_ = has_map() && (trial == nullptr || !outcome.is_answered());
    }
    thread_ = os::start_quiet_thread([this] { repair_for_ever(); });
    return outcome;
}

RedisOutcome RedisServers::attempt(const Wait* caller) {
    RedisOutcome outcome;
    if (has_sentinels()) outcome = learn_master(caller);
    const std::vector<NodePtr> nodes = nodes_;
    for (const NodePtr& node : nodes) {
        outcome = node->attempt(caller);
        tally_.note(outcome);
        if (outcome.is_answered() && is_cluster()) outcome = learn_slots(*node, caller);
        if (outcome.is_answered() || outcome.fault == RedisFault::Refused) break;
    }
    return outcome;
}

// ---- requests

RedisServers::NodePtr RedisServers::owner_of(unsigned slot) const {
    const std::lock_guard lock(mutex_);
    return nodes_.empty() ? nullptr : nodes_[owners_[slot]];
}

// Each server that owns slots, once.
std::vector<RedisServers::NodePtr> RedisServers::owners() const {
    std::vector<NodePtr> owners;
    const std::lock_guard lock(mutex_);
    if (nodes_.empty()) return owners;
    const std::set<std::uint16_t> indices(owners_.begin(), owners_.end());
    for (const std::uint16_t index : indices) owners.push_back(nodes_[index]);
    return owners;
}

// Index of the node at that address, added if it is new; nullopt: too many nodes. Under the mutex.
std::optional<std::uint16_t> RedisServers::add_node(const std::string& host, std::uint16_t port) {
    constexpr std::size_t kMaxNodes = 4096;
    Endpoint endpoint = settings_.servers.endpoints.front();
    endpoint.path.clear();
    endpoint.host = host;
    endpoint.port = port;
    const auto known = std::find_if(nodes_.begin(), nodes_.end(), [&](const NodePtr& node) {
        return node->endpoint().is_at(endpoint);
    });
    const auto index = static_cast<std::size_t>(known - nodes_.begin());
    if (known == nodes_.end()) {
        if (nodes_.size() == kMaxNodes) return std::nullopt;
        nodes_.push_back(std::make_shared<RedisNode>(endpoint, settings_.timing, cancel_));
    }
    return static_cast<std::uint16_t>(index);
}

RedisServers::NodePtr RedisServers::follow(const Redirect& redirect, const RedisNode& from) {
    const std::lock_guard lock(mutex_);
    const auto index =
        add_node(redirect.host.empty() ? from.endpoint().host : redirect.host, redirect.port);
    if (!index) return nullptr;
    if (!redirect.is_ask) {
        owners_[redirect.slot] = *index;
        wants_map_ = true;  // if one slot has moved, others may have
        has_news_ = true;
        wake_.notify_all();
    }
    return nodes_[*index];
}

RedisOutcome RedisServers::walk(unsigned slot, const RedisRequest& request) {
    constexpr int kMaxHops = 8;
    NodePtr node = owner_of(slot);
    bool is_asking = false;
    if (node == nullptr) return nobody();
    RedisOutcome outcome;
    for (int hop = 0; hop < kMaxHops; ++hop) {
        outcome = node->exchange(request, is_asking);
        if (!outcome.is_answered() || outcome.reply.kind != Kind::Error) return outcome;
        const std::optional<Redirect> redirect = parse_redirect(outcome.reply.text);
        if (!is_cluster() || !redirect) break;
        is_asking = redirect->is_ask;
        node = follow(*redirect, *node);
        if (node == nullptr) break;
    }
    outcome.fault = RedisFault::Said;
    const std::string said = shown_text(outcome.reply.text);
    outcome.sentence =
        is_cluster()
            ? "the servers send us round and round: " + said
            : "the server belongs to a cluster, and wants redis+cluster:// in its URL: " + said;
    return outcome;
}

RedisOutcome RedisServers::run(std::string_view key, const RedisRequest& request,
                               std::initializer_list<RedisReply::Kind> kinds) {
    return note(walk(is_cluster() ? slot_of(key) : 0, request), kinds);
}

// Checks an outcome against the expected kinds, counts it, and asks for repairs after an outage.
RedisOutcome RedisServers::note(RedisOutcome outcome,
                                std::initializer_list<RedisReply::Kind> kinds) {
    const bool is_expected =
        std::find(kinds.begin(), kinds.end(), outcome.reply.kind) != kinds.end();
    if (outcome.is_answered() && !is_expected) {
        outcome.fault = RedisFault::Garbled;
        outcome.sentence = "a server gave an answer of another kind than the request has";
    }
    // The server was the master, and is a replica after a failover.
    if (has_sentinels() && outcome.reply.text.starts_with("READONLY")) {
        outcome.fault = RedisFault::Lost;
    }
    tally_.note(outcome);
    want_repair(outcome);
    return outcome;
}

RedisOutcome RedisServers::list_names(const std::string& pattern, const Wait& wait,
                                      std::vector<std::string>& names) {
    RedisOutcome outcome = nobody();
    for (const NodePtr& node : owners()) {
        outcome = list_names(*node, pattern, wait, names);
        if (!outcome.is_answered()) break;
    }
    return outcome;
}

RedisOutcome RedisServers::list_names(RedisNode& node, const std::string& pattern, const Wait& wait,
                                      std::vector<std::string>& names) {
    std::string cursor = "0";
    do {
        RedisRequest request{{"SCAN", cursor, "MATCH", pattern, "COUNT", "1000"}};
        request.most_bytes = kTableMost;
        request.caller = &wait;
        RedisOutcome outcome = note(node.exchange(request), {Kind::Array});
        if (!outcome.is_answered()) return outcome;
        std::vector<RedisReply>& parts = outcome.reply.elements;
        if (parts.size() != 2 || parts[0].kind != Kind::Bytes) {
            return {RedisFault::Garbled, {}, "a server lists its keys in a way of its own"};
        }
        cursor = parts[0].text;
        for (RedisReply& name : parts[1].elements) names.push_back(std::move(name.text));
    } while (cursor != "0");
    return {};
}

void RedisServers::want_repair(const RedisOutcome& outcome) {
    const bool is_broken =
        outcome.fault == RedisFault::Timeout || outcome.fault == RedisFault::Lost ||
        outcome.fault == RedisFault::Garbled || outcome.fault == RedisFault::Refused;
    if (!is_broken) return;
    const std::lock_guard lock(mutex_);
    wants_map_ = has_map();  // after a failover another server has its role
    has_news_ = true;
    wake_.notify_all();
}

RedisServers::Health RedisServers::health() const {
    const std::lock_guard lock(mutex_);
    if (nodes_.empty()) return {1, 1};  // an unknown master counts as away
    const auto away = std::count_if(nodes_.begin(), nodes_.end(), [](const NodePtr& node) {
        return !node->circuit().is_closed();
    });
    return {nodes_.size(), static_cast<std::size_t>(away)};
}

// ---- slot map and master

// Asks the Sentinels in turn until one of them names the master.
RedisOutcome RedisServers::learn_master(const Wait* caller) {
    RedisOutcome outcome;
    for (const Endpoint& sentinel : settings_.servers.endpoints) {
        RedisNode node(sentinel, settings_.timing, cancel_);
        RedisRequest request{{"SENTINEL", "get-master-addr-by-name", settings_.servers.service}};
        request.caller = caller;
        outcome = node.exchange(request);
        if (outcome.is_answered() && !install_master(outcome.reply)) {
            outcome.fault = RedisFault::Said;
            outcome.sentence = "the sentinel at " + sentinel.title() + " knows no master of '" +
                               shown_text(settings_.servers.service) + "'";
        }
        tally_.note(outcome);
        if (outcome.is_answered() || outcome.fault == RedisFault::Cancelled) break;
    }
    return outcome;
}

// Reply: [host, port], both as text.
bool RedisServers::install_master(const RedisReply& reply) {
    if (reply.kind != Kind::Array || reply.elements.size() != 2) return false;
    Endpoint master = settings_.servers.master;
    master.host = reply.elements[0].text;
    const std::string& port = reply.elements[1].text;
    const auto [end, fault] = std::from_chars(port.data(), port.data() + port.size(), master.port);
    if (master.host.empty() || fault != std::errc() || end != port.data() + port.size()) {
        return false;
    }
    const std::lock_guard lock(mutex_);
    if (nodes_.empty() || !nodes_.front()->endpoint().is_at(master)) {
        nodes_ = {std::make_shared<RedisNode>(master, settings_.timing, cancel_)};
    }
    return true;
}

RedisOutcome RedisServers::learn_slots(RedisNode& node, const Wait* caller) {
    RedisRequest request{{"CLUSTER", "SLOTS"}};
    request.most_bytes = kTableMost;
    request.caller = caller;
    RedisOutcome outcome = node.exchange(request);
    if (outcome.is_answered() && !install_slots(outcome.reply, node)) {
        outcome.fault = RedisFault::Said;
        outcome.sentence = "the server at " + node.endpoint().title() + " tells of no slots";
    }
    tally_.note(outcome);
    return outcome;
}

bool RedisServers::install_slots(const RedisReply& reply, const RedisNode& from) {
    if (reply.kind != Kind::Array || reply.elements.empty()) return false;
    const std::lock_guard lock(mutex_);
    bool has_any = false;
    for (const RedisReply& range : reply.elements) has_any |= install_range(range, from);
    return has_any;
}

// Range: [first, last, [host, port, ...], replicas...]. False: malformed. Under the mutex.
bool RedisServers::install_range(const RedisReply& range, const RedisNode& from) {
    if (range.kind != Kind::Array || range.elements.size() < 3) return false;
    const RedisReply& first = range.elements[0];
    const RedisReply& last = range.elements[1];
    const RedisReply& master = range.elements[2];
    if (!is_number(first, 0, kSlots - 1) || !is_number(last, first.integer, kSlots - 1)) {
        return false;
    }
    if (master.kind != Kind::Array || master.elements.size() < 2) return false;
    const std::string& host = master.elements[0].text;
    constexpr long long kMaxPort = 65535;
    if (!is_number(master.elements[1], 1, kMaxPort) || host == "?") return false;
    const auto index = add_node(host.empty() ? from.endpoint().host : host,
                                static_cast<std::uint16_t>(master.elements[1].integer));
    if (!index) return false;
    std::fill(owners_.begin() + first.integer, owners_.begin() + last.integer + 1, *index);
    return true;
}

// ---- repair thread

Clock::time_point RedisServers::next_repair() const {
    // An hour instead of time_point::max(), which overflows in wait_until().
    Clock::time_point next = Clock::now() + std::chrono::hours(1);
    for (const NodePtr& node : nodes_) next = std::min(next, node->circuit().attempt_at());
    if (wants_map_) next = std::min(next, map_at_);
    return next;
}

void RedisServers::repair_for_ever() {
    std::unique_lock lock(mutex_);
    while (!cancel_.is_cancelled()) {
        const Clock::time_point next = next_repair();
        if (Clock::now() < next) {
            wake_.wait_until(lock, next, [this] {
                return cancel_.is_cancelled() || std::exchange(has_news_, false);
            });
            continue;
        }
        const bool wants_map = wants_map_ && Clock::now() >= map_at_;
        if (wants_map) {
            wants_map_ = false;
            map_at_ = Clock::now() + settings_.timing.retry_first;
        }
        const std::vector<NodePtr> nodes = nodes_;
        lock.unlock();
        repair(nodes, wants_map);
        lock.lock();
    }
}

void RedisServers::repair(const std::vector<NodePtr>& nodes, bool wants_map) {
    for (const NodePtr& node : nodes) {
        if (cancel_.is_cancelled()) return;
        if (node->circuit().attempt_at() <= Clock::now()) tally_.note(node->attempt());
    }
    if (!wants_map) return;
    const bool is_current =
        has_sentinels()
            ? learn_master().is_answered()
            : std::any_of(nodes.begin(), nodes.end(), [this](const NodePtr& node) {
                  return node->circuit().is_closed() && learn_slots(*node).is_answered();
              });
    if (is_current && health().away == 0) return;
    // During a failover the new master may not have taken over yet, or not be known to all servers.
    const std::lock_guard lock(mutex_);
    wants_map_ = true;
    if (is_current) map_at_ = Clock::now() + settings_.timing.retry_most;
}

}  // namespace penstock::detail
