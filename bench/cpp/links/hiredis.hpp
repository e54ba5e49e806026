// SET and GET by hiredis alone, as its documentation shows them: the value passes through the
// client's buffers. Only with PENSTOCK_HAVE_HIREDIS.
#pragma once

#ifdef PENSTOCK_HAVE_HIREDIS

#include <hiredis/hiredis.h>

#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "bench/cpp/common/failure.hpp"

namespace penstock::bench {

class Hiredis {
public:
    explicit Hiredis(const std::string& path) : context_(::redisConnectUnix(path.c_str())) {
        require(context_ != nullptr && context_->err == 0, "hiredis does not connect");
    }

    void put(std::string_view key, std::span<const std::byte> bytes) {
        run<3>({"SET", key, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}});
    }
    // Valid until the next call.
    std::span<const std::byte> get(std::string_view key) {
        run<2>({"GET", key});
        return std::as_bytes(std::span(reply_->str, reply_->len));
    }
    void remove(std::string_view key) { run<2>({"DEL", key}); }

private:
    struct Free {
        void operator()(redisContext* context) const { ::redisFree(context); }
        void operator()(redisReply* reply) const { ::freeReplyObject(reply); }
    };

    template <std::size_t kWords>
    void run(const std::array<std::string_view, kWords>& words) {
        std::array<const char*, kWords> starts{};
        std::array<std::size_t, kWords> sizes{};
        for (std::size_t i = 0; i < kWords; ++i) {
            starts[i] = words[i].data();
            sizes[i] = words[i].size();
        }
        reply_.reset(static_cast<redisReply*>(
            ::redisCommandArgv(context_.get(), kWords, starts.data(), sizes.data())));
        require(reply_ != nullptr && reply_->type != REDIS_REPLY_ERROR, "hiredis got no answer");
    }

    std::unique_ptr<redisContext, Free> context_;
    std::unique_ptr<redisReply, Free> reply_;
};

}  // namespace penstock::bench

#endif  // PENSTOCK_HAVE_HIREDIS
