// A second tier: a write-through put, the same of an object that was written in place, and a
// read-through get, beside SET and GET of the same bytes, to the same server over the same Unix
// socket: by the library's own connection, which copies nothing ("plain commands"), and by hiredis.

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "bench/cpp/common/arguments.hpp"
#include "bench/cpp/common/clock.hpp"
#include "bench/cpp/common/guardian.hpp"
#include "bench/cpp/common/payload.hpp"
#include "bench/cpp/common/process.hpp"
#include "bench/cpp/common/report.hpp"
#include "bench/cpp/links/hiredis.hpp"
#include "penstock/store.hpp"
#include "remote/redis_connection.hpp"
#include "tests/unit/support/redis_program.hpp"

namespace penstock::bench {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;
constexpr std::chrono::seconds kPatience{30};

detail::Endpoint endpoint_at(const std::string& path) {
    detail::Endpoint endpoint;
    endpoint.path = path;
    return endpoint;
}

// SET and GET by a connection of the library's, from and into memory that stays.
class Plain {
public:
    explicit Plain(const std::string& path) {
        detail::RedisOutcome outcome;
        connection_ = detail::RedisConnection::open(endpoint_at(path), Deadline::after(kPatience),
                                                    never_, outcome);
    }

    [[nodiscard]] bool is_connected() const { return connection_ != nullptr; }
    void put(std::string_view key, std::span<const std::byte> bytes) {
        detail::RedisRequest request{{"SET", key}};
        request.value = bytes;
        request.is_storing = true;
        run(request);
        room_.resize(bytes.size());
    }
    std::span<const std::byte> get(std::string_view key) {
        detail::RedisRequest request{{"GET", key}};
        detail::ExactSink sink(room_.size(), [this] { return std::span(room_); });
        request.sink = &sink;
        run(request);
        return room_;
    }
    void remove(std::string_view key) { run({{"DEL", key}}); }

private:
    void run(const detail::RedisRequest& request) {
        const detail::RedisOutcome outcome =
            connection_->exchange(request, Deadline::after(kPatience));
        require(outcome.is_answered(), outcome.sentence);
        require(outcome.reply.kind != detail::RedisReply::Kind::Error, outcome.reply.text);
    }

    Cancel never_;
    std::unique_ptr<detail::RedisConnection> connection_;
    std::vector<std::byte> room_;
};

// A store that puts, and another whose first tier is empty.
class Tiered {
public:
    explicit Tiered(const std::string& path) : putter_(make(path)), getter_(make(path)) {}

    void put(std::string_view key, std::span<const std::byte> bytes) {
        require(putter_.put(key, bytes));
    }
    // The time of reserve() and commit(), without that of writing the bytes in between.
    Ticks put_in_place(std::string_view key, std::span<const std::byte> bytes) {
        Ticks begin = ticks();
        StoreReservation room = require(putter_.reserve(key, bytes.size()));
        const Ticks reserved = ticks() - begin;
        std::memcpy(room.bytes().data(), bytes.data(), bytes.size());
        begin = ticks();
        require(room.commit());
        return reserved + (ticks() - begin);
    }
    std::span<const std::byte> get(std::string_view key) {
        object_ = std::make_unique<StoreObject>(require(getter_.get(key)));
        return object_->bytes();
    }
    void remove(std::string_view key) {
        object_.reset();
        require(putter_.remove(key));
        static_cast<void>(getter_.remove(key));  // of its own first tier
    }

private:
    static Store make(const std::string& path) {
        StoreOptions first;
        first.capacity = 128 * kMiB;
        SecondTierOptions& options = first.second_tier.emplace();
        options.urls = {"unix:" + path};
        options.prefix = "tier:";
        options.policy = TierPolicy::WriteThrough;
        options.request_timeout = kPatience;
        return Store::create(new_name(), first);
    }

    Store putter_;
    Store getter_;
    std::unique_ptr<StoreObject> object_;
};

struct Taken {
    Samples puts;
    Samples puts_in_place;
    Samples gets;

    void end_turn() {
        puts.end_turn();
        puts_in_place.end_turn();
        gets.end_turn();
    }
};

template <typename Link>
Ticks time_of_put(Link& link, std::string_view key, std::span<const std::byte> bytes) {
    const Ticks begin = ticks();
    link.put(key, bytes);
    return ticks() - begin;
}

// Plain commands send the bytes from where they lie anyway.
template <typename Link>
Ticks time_of_put_in_place(Link& link, std::string_view key, std::span<const std::byte> bytes) {
    return time_of_put(link, key, bytes);
}

Ticks time_of_put_in_place(Tiered& link, std::string_view key, std::span<const std::byte> bytes) {
    return link.put_in_place(key, bytes);
}

// Puts, gets, compares and removes one object, every other one written in place; records the times
// if the turn counts.
template <typename Link>
void play(Link& link, Payload& payload, std::uint64_t number, Taken* taken) {
    const std::string key = "object-" + std::to_string(number);
    const bool is_in_place = number % 2 == 1;
    const auto bytes = payload.numbered(number);
    const Ticks put =
        is_in_place ? time_of_put_in_place(link, key, bytes) : time_of_put(link, key, bytes);
    const Ticks begin = ticks();
    const auto found = link.get(key);
    const Ticks got = ticks() - begin;
    payload.check(found, number);
    link.remove(key);
    if (taken == nullptr) return;
    (is_in_place ? taken->puts_in_place : taken->puts).add(put);
    taken->gets.add(got);
}

void print(std::string_view who, std::size_t size, const Taken& taken) {
    for (const auto& [operation, samples] : {std::pair{"put", &taken.puts},
                                             {"put in place", &taken.puts_in_place},
                                             {"get", &taken.gets}}) {
        Record("tier")
            .text("who", who)
            .text("operation", operation)
            .count("size", size)
            .latency(*samples)
            .print();
    }
}

// One of the ways, and its times.
template <typename Link>
struct Way {
    std::string_view who;
    Link link;
    Taken taken;

    void take_turn(Payload& payload, std::uint64_t& number, unsigned count, bool counts) {
        for (unsigned i = 0; i < count; ++i) {
            play(link, payload, number++, counts ? &taken : nullptr);
        }
        if (counts) taken.end_turn();
    }
};

void measure(const std::string& path, std::size_t size, unsigned count, unsigned turns) {
    constexpr unsigned kWarmUp = 2;
    Way<Tiered> tiered{"penstock", Tiered(path), {}};
    Way<Plain> plain{"plain commands", Plain(path), {}};
#ifdef PENSTOCK_HAVE_HIREDIS
    Way<Hiredis> hiredis{"hiredis", Hiredis(path), {}};
    const auto ways = std::tie(tiered, plain, hiredis);
#else
    const auto ways = std::tie(tiered, plain);
#endif
    Payload payload(size);
    std::uint64_t number = 0;
    for (unsigned turn = 0; turn < kWarmUp + turns; ++turn) {
        const bool counts = turn >= kWarmUp;
        std::apply([&](auto&... way) { (way.take_turn(payload, number, count, counts), ...); },
                   ways);
    }
    std::apply([&](auto&... way) { (print(way.who, size, way.taken), ...); }, ways);
}

// Becomes a server; its socket has a name that the guardian removes.
void become_server(const std::string& path) {
    test::become(
        test::server_command("/dev/shm", "/dev/null", {"--port", "0", "--unixsocket", path}));
    std::fflush(nullptr);
    _exit(0);  // no server is installed
}

// False if there is no server.
bool await(const std::string& path, pid_t server) {
    const Deadline deadline = Deadline::after(kPatience);
    while (!deadline.has_passed(Clock::now())) {
        if (Plain(path).is_connected()) return true;
        siginfo_t ended{};
        ::waitid(P_PID, static_cast<id_t>(server), &ended, WEXITED | WNOHANG | WNOWAIT);
        if (ended.si_pid != 0) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
}

void run(const Arguments& arguments) {
    const std::string path = "/dev/shm/" + new_name() + "redis.sock";
    Child server([&] { become_server(path); });
    if (!detail::has_redis() || !await(path, server.pid())) {
        std::fprintf(stderr, "left out: a second tier: no hiredis, or no redis-server\n");
        Record("tier_left_out").print();
        return;
    }
    for (const auto& [size, count] : {std::pair{std::size_t{64} << 10U, 32U},
                                      {std::size_t{1} << 20U, 8U},
                                      {std::size_t{16} << 20U, 2U}}) {
        if (arguments.wants_size(size)) measure(path, size, count, arguments.quick ? 5 : 40);
    }
}

}  // namespace
}  // namespace penstock::bench

int main(int argc, char** argv) {
    using namespace penstock::bench;
    const Arguments arguments = parse_arguments(argc, argv);
    return run_guarded(240, [&] { run(arguments); });
}
