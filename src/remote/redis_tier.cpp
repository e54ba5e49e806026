// Read-through, write-back and write-through, removal, and the status of their failures.
#include "remote/redis_tier.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

#include "remote/patience.hpp"
#include "remote/shown.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

namespace {

using Kind = RedisReply::Kind;

constexpr std::size_t kLongestKey = 4096;
constexpr unsigned kMaxWriters = 64;
// Bound of UNLINK and TOUCH of an object, in request_timeouts: one for reading its head, one for
// the head, and the rest for its parts, 256 to a request (in a cluster: one).
constexpr std::uint64_t kPartsRequests = 8;

void require(bool holds, const char* sentence) {
    if (!holds) throw Error(ErrorCode::InvalidArgument, sentence);
}

SecondTierOptions checked(SecondTierOptions options) {
    require(has_redis(), "this library was built without Redis; build it with hiredis");
    require(!options.urls.empty(), "a second tier needs the URL of a server");
    require(options.part_bytes >= kPartLeast && options.part_bytes <= kPartMost,
            "part_bytes is between 4 KiB and 512 MiB");
    require(options.writers >= 1 && options.writers <= kMaxWriters, "there are 1 to 64 writers");
    require(options.connect_timeout.count() > 0 && options.request_timeout.count() > 0,
            "a timeout of a server is longer than nothing");
    require(options.retry_first.count() > 0 && options.retry_most.count() > 0,
            "a server that failed is not tried again without a pause");
    require(!options.ttl || options.ttl->count() > 0, "a ttl is longer than nothing");
    return options;
}

RedisSettings settings_of(const SecondTierOptions& options, ServerList servers) {
    return {std::move(servers),
            {options.connect_timeout, options.request_timeout, options.retry_first,
             options.retry_most}};
}

BacklogOptions limits_of(const SecondTierOptions& options) {
    return {options.max_inflight_bytes, options.when_full, options.full_timeout, options.writers};
}

ErrorCode code_of(RedisFault fault) noexcept {
    switch (fault) {
        case RedisFault::Timeout:
            return ErrorCode::Timeout;
        case RedisFault::Away:
        case RedisFault::Lost:
            return ErrorCode::PeerDied;
        case RedisFault::Refused:
            return ErrorCode::PermissionDenied;
        case RedisFault::Cancelled:
            return ErrorCode::Cancelled;
        default:
            return ErrorCode::System;
    }
}

// Status of a failed request, for a caller with this Wait.
Status status_of(const RedisOutcome& outcome, const Wait& wait) noexcept {
    const bool is_late = outcome.fault == RedisFault::Cancelled && !wait.deadline.is_never() &&
                         wait.deadline.has_passed(Clock::now());
    return {is_late ? ErrorCode::Timeout : code_of(outcome.fault), outcome.sentence};
}

// True: the request was ended by our own bound, not by the caller's Wait.
bool is_over(const RedisOutcome& outcome, const Wait& bounded, const Wait& callers) noexcept {
    if (outcome.fault != RedisFault::Cancelled) return false;
    const auto now = Clock::now();
    return bounded.deadline.has_passed(now) && !has_ended(callers, now);
}

// The connection did not receive the value, because its first bytes or its length said enough.
bool is_unwanted(RedisFault fault) noexcept {
    return fault == RedisFault::Misfit || fault == RedisFault::Cancelled;
}

constexpr const char* kWrongBytes = "has not the bytes that its head tells of";

// Keys of any other length are in no store.
bool is_key(std::string_view key) noexcept {
    return !key.empty() && key.size() <= kLongestKey;
}

}  // namespace

std::shared_ptr<SecondTier> SecondTier::open(const SecondTierOptions& given, const Wait& wait) {
    const SecondTierOptions options = checked(given);
    // A forked child leaks the tier: it has no threads to join, and the connections are its
    // parent's.
    std::shared_ptr<RedisTier> tier(new RedisTier(options, parse_servers(options.urls)),
                                    [](RedisTier* old) {
                                        if (!old->is_foreign()) delete old;
                                    });
    Wait patient = wait;  // Deadline::now() is for the store's name, not for the trial
    if (wait.deadline.is_try()) patient.deadline = Deadline::never();
    const RedisOutcome met = tier->start(options.has_trial ? &patient : nullptr);
    const Status refused = status_of(met, patient);
    if (refused.code() == ErrorCode::PermissionDenied || refused.code() == ErrorCode::Cancelled) {
        refused.or_throw();
    }
    return tier;
}

RedisTier::RedisTier(SecondTierOptions options, ServerList servers)
    : options_(std::move(options)), servers_(settings_of(options_, std::move(servers)), tally_),
      objects_(servers_, {options_.prefix, options_.part_bytes, options_.ttl}),
      backlog_(
          limits_of(options_), tally_,
          [this](const BacklogItem& item) { return send(item.key, item.object, Wait()); },
          [this] { return servers_.health().away > 0; }) {}

void RedisTier::stand_behind(Store first) {
    first_.emplace(std::move(first));
    // Half of the capacity at most, because waiting objects are pinned and can't be evicted.
    if (options_.policy == TierPolicy::WriteBack) backlog_.start(first_->capacity() / 2);
}

RedisTier::~RedisTier() {
    servers_.cancel();
    backlog_.stop();
}

// ---- writing

RedisOutcome RedisTier::send(const std::string& key, const StoreObject& object, const Wait& wait) {
    RedisOutcome outcome =
        objects_.write(key, object.bytes(), object.meta(), object.format(), wait);
    if (outcome.is_answered()) {
        TierTally::add(tally_.written);
        TierTally::add(tally_.written_bytes, object.bytes().size() + object.meta().size());
    }
    return outcome;
}

Status RedisTier::write(std::string key, const std::function<Status()>& commit,
                        const std::optional<StoreObject>& object, const Wait& wait) noexcept {
    if (options_.policy == TierPolicy::ReadOnly) return commit();
    const Backlog::Turn turn = backlog_.announce(std::move(key));
    Status status = commit();
    if (status) status = write(turn, *object, wait);
    backlog_.leave(turn);
    return status;
}

// Writes a committed object, by policy.
Status RedisTier::write(const Backlog::Turn& turn, const StoreObject& object,
                        const Wait& wait) noexcept {
    const std::uint64_t bytes = object.bytes().size() + object.meta().size();
    if (options_.policy == TierPolicy::WriteBack) {
        if (backlog_.add(turn, object.share(), bytes, wait)) return Status::ok();
        return Status::closed_here(
            "the first tier has it, and not the second, which this handle had left before");
    }
    RedisOutcome outcome{RedisFault::Cancelled, {}, "an older object is still being written"};
    if (backlog_.await_turn(turn, wait)) outcome = send(turn.first, object, wait);
    if (outcome.is_answered()) return Status::ok();
    tally_.drop(bytes);
    return status_of(outcome, wait);
}

// ---- reading

Result<StoreObject> RedisTier::fetch(std::string_view key, const Wait& wait,
                                     const FetchCheck* check) noexcept {
    if (!is_key(key)) return Status(ErrorCode::NotFound);
    for (;;) {
        auto [flight, role] = single_flight_.join(key);
        if (role == SingleFlight::Role::Leader) return lead({key, wait, check, *flight});
        if (role == SingleFlight::Role::Refused) {
            return Status(ErrorCode::Busy,
                          "this thread is fetching an object further up, and can't wait for a "
                          "fetch before that is over");
        }
        TierTally::add(tally_.shared);
        if (!single_flight_.await(*flight, wait)) {
            return status_of({RedisFault::Cancelled, {}, "another thread is still fetching it"},
                             wait);
        }
        // The leader's Wait ended, not ours: fetch again.
        if (flight->status.code() == ErrorCode::Cancelled ||
            flight->status.code() == ErrorCode::Timeout) {
            continue;
        }
        if (!flight->status) return flight->status;
        return first_->get(key);
    }
}

Result<StoreObject> RedisTier::lead(const Fetch& fetch) noexcept {
    // Another flight of the key may have landed between our miss and join().
    Result<StoreObject> object = first_->contains(fetch.key) ? first_->get(fetch.key) : read(fetch);
    single_flight_.land(fetch.key, fetch.flight, object.status(),
                        [&]() -> std::optional<StoreObject> { return object->share(); });
    return object;
}

// Status of a fetch without a value: NotFound, unless the caller's Wait ended. Counts it.
Status RedisTier::missed(const RedisOutcome& outcome, const Wait& wait) noexcept {
    if (outcome.fault == RedisFault::Cancelled) return status_of(outcome, wait);
    if (outcome.fault == RedisFault::Away) TierTally::add(tally_.skipped);
    if (outcome.is_answered()) TierTally::add(tally_.misses);
    return Status(ErrorCode::NotFound);
}

// NotFound for a value that can't be used. Counts and explains it.
Status RedisTier::unread(TierTally::Count& count, std::string_view key,
                         std::string_view why) noexcept {
    // A value without room is no miss of the server.
    if (&count != &tally_.no_room) TierTally::add(tally_.misses);
    TierTally::add(count);
    constexpr std::size_t kKeyMost = 60;
    tally_.explain("the second tier's value of '" + shown_text(key, kKeyMost) + "' " +
                   std::string(why));
    return Status(ErrorCode::NotFound);
}

Status RedisTier::damaged(const Fetch& fetch, std::string_view why) noexcept {
    if (options_.delete_corrupt && options_.policy != TierPolicy::ReadOnly) {
        objects_.act_on("UNLINK", fetch.key, bounded(fetch.wait, kPartsRequests));
    }
    return unread(tally_.corrupt, fetch.key, why);
}

// Bounds a series of requests: a head may name a million parts, and a server may delay each answer
// to just below the timeout.
Wait RedisTier::bounded(const Wait& wait, std::uint64_t requests) const noexcept {
    using Seconds = std::chrono::duration<double>;
    constexpr double kCentury = 100.0 * 365 * 24 * 3600;
    const double span = Seconds(options_.request_timeout).count() * static_cast<double>(requests);
    const auto most =
        std::chrono::duration_cast<std::chrono::nanoseconds>(Seconds(std::min(span, kCentury)));
    Wait bounded = wait;
    bounded.deadline = Deadline::after(wait.deadline.left(Clock::now(), most));
    return bounded;
}

std::uint64_t RedisTier::requests_for(const ValueHead& head) const noexcept {
    return 2 + head.nbytes / options_.part_bytes;
}

// Room of one fetch in the first tier: taken once the servers have announced the data, and given
// back unless it is committed.
class RedisTier::Landing {
public:
    Landing(Store& first, std::string_view key) : first_(first), key_(key) {}

    // False: the object can't be brought in; refused() says why. Takes no room, and gives back the
    // room of an earlier attempt, which found another value.
    bool may_begin(const ValueHead& head) {
        room_.reset();
        if (!fits(head)) return false;
        if (first_.look(key_).state != StoreLook::State::Staged) return true;
        // Another writer has the key staged, or died: then reserve() reaps it and succeeds.
        return note(first_.reserve(key_, 0).status());
    }
    // Room for the data; nullopt: refused() says why. Gives back the room of an earlier attempt.
    std::optional<std::span<std::byte>> make(const ValueHead& head,
                                             std::span<const std::byte> meta) {
        room_.reset();
        if (!fits(head)) return std::nullopt;
        ReserveOptions options;
        options.meta = meta;
        options.format = head.format;
        Result<StoreReservation> room = first_.reserve(key_, head.nbytes, options);
        if (!note(room.status())) return std::nullopt;
        room_.emplace(*std::move(room));
        return room_->bytes();
    }

    [[nodiscard]] const Status& refused() const noexcept { return refused_; }
    [[nodiscard]] StoreReservation& room() noexcept { return *room_; }

private:
    bool fits(const ValueHead& head) {
        return note(Status(head.nbytes > first_.capacity() ? ErrorCode::TooLarge : ErrorCode::Ok));
    }
    bool note(Status status) {
        refused_ = std::move(status);
        return refused_.is_ok();
    }

    Store& first_;
    const std::string_view key_;
    Status refused_;
    std::optional<StoreReservation> room_;
};

Result<StoreObject> RedisTier::read(const Fetch& fetch) noexcept {
    Landing landing(*first_, fetch.key);
    if (first_->look(fetch.key).state == StoreLook::State::Staged) {
        // Another participant is writing it. The head says how long that may take.
        const auto [outcome, read] = objects_.read_head(fetch.key, fetch.wait);
        const bool is_known = outcome.is_answered() || outcome.fault == RedisFault::Misfit;
        if (!is_known) return missed(outcome, fetch.wait);
        if (read.kind == HeadKind::Sound && !landing.may_begin(read.head)) {
            return without_room(fetch, read.head, landing.refused());
        }
    }
    const RemoteObjects::Found found = objects_.find(
        fetch.key,
        [&](const ValueHead& head, std::span<const std::byte> meta) {
            return landing.make(head, meta);
        },
        fetch.wait);
    const RedisOutcome& outcome = found.outcome;
    // The head says what the value is, even where the rest of it was not received.
    const bool is_known = found.kind && (outcome.is_answered() || is_unwanted(outcome.fault));
    if (is_known && *found.kind == HeadKind::Foreign) {
        return unread(tally_.incompatible, fetch.key, "is of another version of Penstock");
    }
    if (is_known && *found.kind != HeadKind::Sound) return damaged(fetch, "has a damaged head");
    if (outcome.fault == RedisFault::Misfit) {
        return damaged(fetch, "is longer than any that a writer writes");
    }
    if (!landing.refused()) return without_room(fetch, found.head, landing.refused());
    if (!outcome.is_answered() || !found.kind) return missed(outcome, fetch.wait);
    if (!found.head.is_inline()) return bring_in(fetch, found, landing);
    if (!found.is_intact) return damaged(fetch, kWrongBytes);
    return accept(fetch, found, landing.room());
}

// Fetches the parts of a head.
Result<StoreObject> RedisTier::bring_in(const Fetch& fetch, const RemoteObjects::Found& found,
                                        Landing& landing) noexcept {
    const ValueHead& head = found.head;
    if (!landing.may_begin(head)) return without_room(fetch, head, landing.refused());
    const Wait wait = bounded(fetch.wait, requests_for(head));
    const MakeRoom make_room = [&] {
        return landing.make(head, std::as_bytes(std::span(found.meta)));
    };
    auto [outcome, is_intact] = objects_.read_parts(fetch.key, head, make_room, wait);
    if (!landing.refused()) return without_room(fetch, head, landing.refused());
    if (outcome.fault == RedisFault::Misfit) {
        return damaged(fetch, "has a part of another length than its head tells of");
    }
    if (is_over(outcome, wait, fetch.wait)) {
        outcome.fault = RedisFault::Timeout;
        outcome.sentence = "the second tier takes too long with the parts of an object";
        tally_.note(outcome);
    }
    // Nil: the server evicted a part, or it expired. A miss, not damage.
    const bool is_incomplete = outcome.is_answered() && outcome.reply.kind == Kind::Nil;
    if (!outcome.is_answered() || is_incomplete) return missed(outcome, fetch.wait);
    if (!is_intact) return damaged(fetch, kWrongBytes);
    return accept(fetch, found, landing.room());
}

// Result of a fetch for which the first tier refused a reservation.
Result<StoreObject> RedisTier::without_room(const Fetch& fetch, const ValueHead& head,
                                            const Status& refused) noexcept {
    switch (refused.code()) {
        case ErrorCode::AlreadyExists:
            return first_->get(fetch.key);
        case ErrorCode::TooLarge:
            return unread(tally_.no_room, fetch.key, "is larger than the first tier");
        case ErrorCode::NoSpace:
            return unread(tally_.no_room, fetch.key,
                          "found no room: " + std::string(refused.message()));
        case ErrorCode::Busy:
            break;
        default:
            return refused;
    }
    // Busy: another process of this machine fetches or writes the object.
    Result<StoreObject> object = first_->wait(fetch.key, bounded(fetch.wait, requests_for(head)));
    if (object.code() != ErrorCode::Timeout || has_ended(fetch.wait, Clock::now())) return object;
    return unread(tally_.timeouts, fetch.key, "takes another participant too long");
}

// Lets the caller check a complete and intact value, and commits it.
Result<StoreObject> RedisTier::accept(const Fetch& fetch, const RemoteObjects::Found& found,
                                      StoreReservation& reservation) noexcept {
    const std::span<const std::byte> data = reservation.bytes();
    const std::span<const std::byte> meta = std::as_bytes(std::span(found.meta));
    if (fetch.check != nullptr) {
        const FetchResult checked = (*fetch.check)({data, meta, found.head.format});
        switch (checked.kind) {
            case FetchResult::Kind::Accept:
                break;
            case FetchResult::Kind::Incompatible:
                return unread(tally_.incompatible, fetch.key,
                              "can't be read here: " + checked.sentence);
            case FetchResult::Kind::Corrupt:
                return damaged(fetch, "is no value: " + checked.sentence);
            case FetchResult::Kind::Cancelled:
                return Status(ErrorCode::Cancelled, checked.sentence);
        }
    }
    const std::uint64_t bytes = data.size() + meta.size();
    // Committed, not looked up: for the eviction a fetched object equals one that was just put.
    std::optional<StoreObject> object;
    const Status status =
        single_flight_.unless_revoked(fetch.flight, [&] { return reservation.commit(object); });
    if (!status) return status;
    TierTally::add(tally_.hits);
    TierTally::add(tally_.fetched_bytes, bytes);
    return *std::move(object);
}

bool RedisTier::contains(std::string_view key, const Wait& wait) noexcept {
    if (!is_key(key)) return false;
    const RedisOutcome outcome = objects_.has_head(key, wait);
    if (outcome.fault == RedisFault::Away) TierTally::add(tally_.skipped);
    return outcome.is_answered() && outcome.reply.integer == 1;
}

StoreLook RedisTier::look(std::string_view key, const Wait& wait) noexcept {
    StoreLook look;
    if (!is_key(key)) return look;
    const RemoteObjects::Head head = objects_.read_head(key, wait);
    if (head.outcome.fault == RedisFault::Away) TierTally::add(tally_.skipped);
    if (!head.outcome.is_answered() || head.read.kind != HeadKind::Sound) return look;
    look.state = StoreLook::State::Remote;
    look.nbytes = head.read.head.nbytes;
    return look;
}

bool RedisTier::touch(std::string_view key, const Wait& wait) noexcept {
    if (!is_key(key)) return false;
    const RedisOutcome outcome = objects_.act_on("TOUCH", key, bounded(wait, kPartsRequests));
    return outcome.is_answered() && outcome.reply.integer > 0;
}

std::vector<std::string> RedisTier::keys(const Wait& wait) {
    std::vector<std::string> keys;
    const RedisOutcome outcome = objects_.list_keys(keys, wait);
    if (!outcome.is_answered()) status_of(outcome, wait).or_throw();
    return keys;
}

// ---- removing

Status RedisTier::remove(std::string_view key, const Wait& wait) noexcept {
    if (options_.policy == TierPolicy::ReadOnly || !is_key(key)) return first_->remove(key);
    Status status = remove_once(key, wait);
    // Objects put or fetched meanwhile. Once only, because other threads may go on putting them.
    if (first_->contains(key)) {
        Status again = remove_once(key, wait);
        if (again.code() != ErrorCode::NotFound) status = std::move(again);
    }
    return status;
}

Status RedisTier::remove_once(std::string_view key, const Wait& wait) noexcept {
    Status status = first_->remove(key);
    if (!status && status.code() != ErrorCode::NotFound) return status;
    const Backlog::Turn turn = backlog_.announce(std::string(key));
    Status unlinked = unlink(turn, wait);
    backlog_.leave(turn);
    return unlinked.code() == ErrorCode::NotFound ? status : unlinked;
}

Status RedisTier::unlink(const Backlog::Turn& turn, const Wait& wait) noexcept {
    const std::string& key = turn.first;
    if (!backlog_.forget(turn, Deadline::after(options_.request_timeout), wait)) {
        return {ErrorCode::Timeout, "it is still being written to the second tier"};
    }
    // Revoked before and after UNLINK, so that neither a fetch under way nor one that begins before
    // the servers have removed the value commits it again.
    single_flight_.revoke(key);
    const Wait bound = bounded(wait, kPartsRequests);
    const RedisOutcome outcome = objects_.act_on("UNLINK", key, bound);
    single_flight_.revoke(key);
    if (is_over(outcome, bound, wait)) {
        // Integer: the head is gone, and only parts are left.
        return outcome.reply.kind == Kind::Integer ? Status::ok() : status_of(outcome, bound);
    }
    if (!outcome.is_answered()) return status_of(outcome, wait);
    return Status(outcome.reply.integer > 0 ? ErrorCode::Ok : ErrorCode::NotFound);
}

// ---- the end

Unwritten RedisTier::flush(const Wait& wait) noexcept {
    return is_foreign() ? Unwritten{} : backlog_.flush(wait);
}

Unwritten RedisTier::close(const Wait& wait) noexcept {
    if (is_foreign()) return {};
    Unwritten report = backlog_.flush(wait);
    servers_.cancel();
    const Unwritten rest = backlog_.stop();
    report.waiting = 0;
    report.waiting_bytes = 0;
    report.dropped += rest.dropped;
    report.dropped_bytes += rest.dropped_bytes;
    return report;
}

void RedisTier::cancel() noexcept {
    if (!is_foreign()) servers_.cancel();
}

TierStats RedisTier::stats() const {
    const auto read = [](const TierTally::Count& count) { return load_relaxed(count); };
    TierStats stats;
    stats.hits = read(tally_.hits);
    stats.misses = read(tally_.misses);
    stats.skipped = read(tally_.skipped);
    stats.shared = read(tally_.shared);
    stats.errors = read(tally_.errors);
    stats.timeouts = read(tally_.timeouts);
    stats.corrupt = read(tally_.corrupt);
    stats.incompatible = read(tally_.incompatible);
    stats.no_room = read(tally_.no_room);
    stats.fetched_bytes = read(tally_.fetched_bytes);
    stats.written = read(tally_.written);
    stats.written_bytes = read(tally_.written_bytes);
    stats.dropped = read(tally_.dropped);
    stats.dropped_bytes = read(tally_.dropped_bytes);
    const Backlog::Use use = backlog_.use();
    stats.inflight = use.objects;
    stats.inflight_bytes = use.bytes;
    const RedisServers::Health health = servers_.health();
    stats.servers = health.servers;
    stats.servers_away = health.away;
    stats.circuit = health.away == 0                ? CircuitState::Closed
                    : health.away == health.servers ? CircuitState::Open
                                                    : CircuitState::Partial;
    stats.last_error = tally_.last_error();
    return stats;
}

}  // namespace penstock::detail
