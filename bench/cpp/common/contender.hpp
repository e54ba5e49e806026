// A contender: one link behind an interface that is called once per turn, so that the loops over
// messages are compiled for each link and contain no virtual call.
#pragma once

#include <memory>
#include <vector>

#include "bench/cpp/common/clock.hpp"
#include "bench/cpp/common/payload.hpp"
#include "bench/cpp/common/samples.hpp"
#include "bench/cpp/links/bare.hpp"
#include "bench/cpp/links/bare_ring.hpp"
#include "bench/cpp/links/boost_queue.hpp"
#include "bench/cpp/links/link.hpp"
#include "bench/cpp/links/penstock.hpp"
#include "bench/cpp/links/penstock_queue.hpp"
#include "bench/cpp/links/unix_socket.hpp"
#include "bench/cpp/links/zmq.hpp"

namespace penstock::bench {

class Contender {
public:
    virtual ~Contender() = default;
    [[nodiscard]] virtual const char* name() const = 0;
    virtual void open_driver() = 0;
    virtual void open_reader(unsigned rank) = 0;
    virtual void close() = 0;

    // Round trips: the driver sends and waits for the answer of every reader before the next one.
    // One sample per round trip after the first `warm_up`.
    virtual void ping(std::uint32_t count, std::uint32_t warm_up, Samples& samples) = 0;
    virtual void echo(std::uint32_t count) = 0;

    // Untimed round trips until every page of the link's memory has been touched from both sides.
    [[nodiscard]] virtual std::uint32_t warm_up_count() const = 0;
    virtual void warm_up() = 0;

    // One way: the driver sends as fast as possible, readers check.
    virtual void pour(std::uint32_t count) = 0;
    virtual void drain(std::uint32_t count) = 0;
};

template <typename Link>
class ContenderOf final : public Contender {
public:
    explicit ContenderOf(const Place& place) : link_(place), payload_(place.message_size) {}

    [[nodiscard]] const char* name() const override { return Link::kName; }
    void open_driver() override { link_.open_driver(); }
    void open_reader(unsigned rank) override { link_.open_reader(rank); }
    void close() override { link_.close(); }

    void ping(std::uint32_t count, std::uint32_t warm_up, Samples& samples) override {
        Ticks before = ticks();
        for (std::uint32_t i = 0; i < count; ++i) {
            const std::uint64_t sequence = next_++;
            link_.send(payload_.numbered(sequence));
            link_.collect([&](Bytes answer) { check(answer, sequence); });
            const Ticks now = ticks();
            if (i >= warm_up) {
                samples.add(now - before);
            }
            before = now;
        }
    }
    void echo(std::uint32_t count) override {
        for (std::uint32_t i = 0; i < count; ++i) {
            link_.receive([&](Bytes message) {
                check(message, next_++);
                link_.answer(message);
            });
        }
    }

    [[nodiscard]] std::uint32_t warm_up_count() const override {
        return static_cast<std::uint32_t>(Link::kRingBytes / payload_.size() / window() + 1) *
               window();
    }
    // A few at a time: a lap of small messages would take long one by one.
    void warm_up() override {
        for (std::uint32_t done = 0; done < warm_up_count(); done += window()) {
            const std::uint64_t first = next_;
            while (next_ != first + window()) {
                link_.send(payload_.numbered(next_++));
            }
            for (std::uint64_t sequence = first; sequence != next_; ++sequence) {
                link_.collect([&](Bytes answer) { check(answer, sequence); });
            }
        }
    }

    void pour(std::uint32_t count) override {
        for (std::uint32_t i = 0; i < count; ++i) {
            link_.send(payload_.numbered(next_++));
        }
    }
    void drain(std::uint32_t count) override {
        for (std::uint32_t i = 0; i < count; ++i) {
            link_.receive([&](Bytes message) { check(message, next_++); });
        }
    }

private:
    [[nodiscard]] std::uint32_t window() const {
        return Link::kRingBytes / payload_.size() >= 64 ? 4 : 1;
    }

    void check(Bytes message, std::uint64_t sequence) const {
        if constexpr (Link::kCarriesMessages) {
            payload_.check(message, sequence);
        }
    }

    Link link_;
    Payload payload_;
    std::uint64_t next_ = 0;  // sequence number, equal on both sides
};

using Contenders = std::vector<std::unique_ptr<Contender>>;

template <typename Link>
void add_contender(Contenders& all, const Place& place) {
    all.push_back(std::make_unique<ContenderOf<Link>>(place));
}

// The peers that this build includes.
inline void add_peers(Contenders& all, const Place& place) {
    add_contender<UnixSocketLink>(all, place);
#ifdef PENSTOCK_HAVE_BOOST
    add_contender<BoostQueueLink>(all, place);
#endif
#ifdef PENSTOCK_HAVE_ZMQ
    add_contender<ZmqLink>(all, place);
#endif
}

}  // namespace penstock::bench
