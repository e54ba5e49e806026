// Where keys are, redirections, and repairs.
#include "remote/redis_servers.hpp"

#include <algorithm>
#include <utility>

#include "os/thread.hpp"
#include "remote/shown.hpp"

namespace penstock::detail {

namespace {

using Kind = RedisReply::Kind;

bool is_number(const RedisReply& reply, long long least, long long most) {
    return reply.kind == Kind::Integer && reply.integer >= least && reply.integer <= most;
}

}  // namespace

RedisServers::RedisServers(RedisSettings settings, TierTally& tally)
    : settings_(std::move(settings)), tally_(tally) {
    for (const Endpoint& endpoint : settings_.endpoints) {
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

RedisOutcome RedisServers::start() {
    RedisOutcome outcome;
    const std::vector<NodePtr> nodes = nodes_;
    for (const NodePtr& node : nodes) {
        outcome = node->attempt();
        tally_.note(outcome);
        if (outcome.is_answered() && settings_.is_cluster) outcome = learn_slots(*node);
        if (outcome.is_answered() || outcome.fault == RedisFault::Refused) break;
    }
    if (outcome.fault == RedisFault::Refused) return outcome;
    {
        const std::lock_guard lock(mutex_);
        wants_slots_ = settings_.is_cluster && !outcome.is_answered();
    }
    thread_ = os::start_quiet_thread([this] { repair_for_ever(); });
    return outcome;
}

// ---- requests

RedisServers::NodePtr RedisServers::owner_of(unsigned slot) const {
    const std::lock_guard lock(mutex_);
    return nodes_[owners_[slot]];
}

// The index of the node there; nothing: there are more than any cluster has. Under the mutex.
std::optional<std::uint16_t> RedisServers::add_node(const std::string& host, std::uint16_t port) {
    constexpr std::size_t kMaxNodes = 4096;
    Endpoint endpoint = settings_.endpoints.front();
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
        wants_slots_ = true;  // where one has moved, others have
        has_news_ = true;
        wake_.notify_all();
    }
    return nodes_[*index];
}

RedisOutcome RedisServers::walk(unsigned slot, const RedisRequest& request) {
    constexpr int kMaxHops = 8;
    NodePtr node = owner_of(slot);
    bool is_asking = false;
    RedisOutcome outcome;
    for (int hop = 0; hop < kMaxHops; ++hop) {
        outcome = node->exchange(request, is_asking);
        if (!outcome.is_answered() || outcome.reply.kind != Kind::Error) return outcome;
        const std::optional<Redirect> redirect = parse_redirect(outcome.reply.text);
        if (!settings_.is_cluster || !redirect) break;
        is_asking = redirect->is_ask;
        node = follow(*redirect, *node);
        if (node == nullptr) break;
    }
    outcome.fault = RedisFault::Said;
    const std::string said = shown_text(outcome.reply.text);
    outcome.sentence =
        settings_.is_cluster
            ? "the servers send us round and round: " + said
            : "the server belongs to a cluster, which the options don't say: " + said;
    return outcome;
}

RedisOutcome RedisServers::run(std::string_view key, const RedisRequest& request,
                               std::initializer_list<RedisReply::Kind> kinds) {
    RedisOutcome outcome = walk(settings_.is_cluster ? slot_of(key) : 0, request);
    const bool is_expected =
        std::find(kinds.begin(), kinds.end(), outcome.reply.kind) != kinds.end();
    if (outcome.is_answered() && !is_expected) {
        outcome.fault = RedisFault::Garbled;
        outcome.sentence = "a server gave an answer of another kind than the request has";
    }
    tally_.note(outcome);
    want_repair(outcome);
    return outcome;
}

void RedisServers::want_repair(const RedisOutcome& outcome) {
    const bool is_broken =
        outcome.fault == RedisFault::Timeout || outcome.fault == RedisFault::Lost ||
        outcome.fault == RedisFault::Garbled || outcome.fault == RedisFault::Refused;
    if (!is_broken) return;
    const std::lock_guard lock(mutex_);
    wants_slots_ = settings_.is_cluster;  // somebody else may have its slots now
    has_news_ = true;
    wake_.notify_all();
}

RedisServers::Health RedisServers::health() const {
    const std::lock_guard lock(mutex_);
    const auto away = std::count_if(nodes_.begin(), nodes_.end(), [](const NodePtr& node) {
        return !node->circuit().is_closed();
    });
    return {nodes_.size(), static_cast<std::size_t>(away)};
}

// ---- the map of slots

RedisOutcome RedisServers::learn_slots(RedisNode& node) {
    RedisRequest request{{"CLUSTER", "SLOTS"}};
    request.most_bytes = std::uint64_t{16} << 20U;
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

// [first, last, [host, port, ...], replicas...]. False: it says something else. Under the mutex.
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

// ---- the thread

Clock::time_point RedisServers::next_repair() const {
    // Far enough, and no overflow in the library's arithmetic.
    Clock::time_point next = Clock::now() + std::chrono::hours(1);
    for (const NodePtr& node : nodes_) next = std::min(next, node->circuit().attempt_at());
    if (wants_slots_) next = std::min(next, slots_at_);
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
        const bool wants_slots = wants_slots_ && Clock::now() >= slots_at_;
        if (wants_slots) {
            wants_slots_ = false;
            slots_at_ = Clock::now() + settings_.timing.retry_first;
        }
        const std::vector<NodePtr> nodes = nodes_;
        lock.unlock();
        repair(nodes, wants_slots);
        lock.lock();
    }
}

void RedisServers::repair(const std::vector<NodePtr>& nodes, bool wants_slots) {
    for (const NodePtr& node : nodes) {
        if (cancel_.is_cancelled()) return;
        if (node->circuit().attempt_at() <= Clock::now()) tally_.note(node->attempt());
    }
    if (!wants_slots) return;
    const bool is_current = std::any_of(nodes.begin(), nodes.end(), [this](const NodePtr& node) {
        return node->circuit().is_closed() && learn_slots(*node).is_answered();
    });
    const bool is_whole = std::all_of(nodes.begin(), nodes.end(), [](const NodePtr& node) {
        return node->circuit().is_closed();
    });
    if (is_current && is_whole) return;
    // Whoever takes over for one that is away may not have done it yet, or not told all others.
    const std::lock_guard lock(mutex_);
    wants_slots_ = true;
    if (is_current) slots_at_ = Clock::now() + settings_.timing.retry_most;
}

}  // namespace penstock::detail
