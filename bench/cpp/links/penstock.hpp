// Penstock: one default Broadcast from the driver to all readers, and one back from each reader.
#pragma once

#include <array>
#include <chrono>
#include <optional>
#include <vector>

#include "bench/cpp/common/failure.hpp"
#include "bench/cpp/links/link.hpp"
#include "penstock/broadcast.hpp"

namespace penstock::bench {

// Small messages are cheaper to copy out; large ones are read in place.
enum class Taking { Advised, InPlace };

template <Taking kTaking>
class PenstockLinkOf {
public:
    static constexpr const char* kName =
        kTaking == Taking::Advised ? "penstock" : "penstock, in place";
    static constexpr bool kCarriesMessages = true;
    static constexpr std::size_t kRingBytes = std::size_t{4} << 20U;

    explicit PenstockLinkOf(const Place& place)
        : place_(place), name_(place.name + (kTaking == Taking::InPlace ? ".lent" : "")) {}

    void open_driver() {
        BroadcastOptions options;
        options.readers = place_.readers;
        forward_ = BroadcastWriter::create(name_, options);
        for (unsigned rank = 0; rank < place_.readers; ++rank) {
            answers_.push_back(BroadcastReader::attach(answer_name(rank), 0, kPatience));
        }
        require(forward_->wait_ready(kPatience));
    }
    void open_reader(unsigned rank) {
        answer_ = BroadcastWriter::create(answer_name(rank));
        messages_ = BroadcastReader::attach(name_, rank, kPatience);
    }

    void send(Bytes message) { require(forward_->send(message)); }
    void answer(Bytes message) { require(answer_->send(message)); }

    template <typename Use>
    void receive(Use&& use) {
        take(*messages_, use);
    }
    template <typename Use>
    void collect(Use&& use) {
        for (BroadcastReader& reader : answers_) {
            take(reader, use);
        }
    }

    void close() {
        answers_.clear();
        answer_.reset();
        messages_.reset();
        forward_.reset();
    }

private:
    static constexpr std::chrono::nanoseconds kPatience = std::chrono::seconds(20);

    template <typename Use>
    void take(BroadcastReader& reader, Use&& use) {
        if (kTaking == Taking::Advised && place_.message_size <= kSmall) {
            const Result<std::size_t> size = reader.recv_into(buffer_);
            require(size.status());
            use(Bytes(buffer_).first(*size));
            return;
        }
        const Result<BroadcastMessage> message = reader.recv();
        require(message.status());
        use((*message).bytes());
    }

    static constexpr std::size_t kSmall = 4096;

    [[nodiscard]] std::string answer_name(unsigned rank) const {
        return name_ + ".answer" + std::to_string(rank);
    }

    Place place_;
    std::string name_;
    alignas(64) std::array<std::byte, kSmall> buffer_{};
    std::optional<BroadcastWriter> forward_;
    std::vector<BroadcastReader> answers_;
    std::optional<BroadcastReader> messages_;
    std::optional<BroadcastWriter> answer_;
};

using PenstockLink = PenstockLinkOf<Taking::Advised>;
using PenstockInPlaceLink = PenstockLinkOf<Taking::InPlace>;

}  // namespace penstock::bench
