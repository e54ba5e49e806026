// One result as one line of JSON on stdout, gathered by bench/run.py. Keys and texts are our own
// and need no escaping.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "bench/cpp/common/samples.hpp"

namespace penstock::bench {

class Record {
public:
    explicit Record(std::string_view bench) { text("bench", bench); }

    Record& text(std::string_view key, std::string_view value) {
        return raw(key, std::string(1, '"').append(value).append(1, '"'));
    }
    Record& number(std::string_view key, double value) { return raw(key, format(value)); }
    Record& count(std::string_view key, std::uint64_t value) {
        return raw(key, std::to_string(value));
    }
    Record& list(std::string_view key, const std::vector<double>& values) {
        std::string body = "[";
        for (const double value : values) {
            body.append(body.size() > 1 ? "," : "").append(format(value));
        }
        return raw(key, body.append("]"));
    }

    // The quantiles of `samples` in nanoseconds, each sample divided by `divisor`: 2 makes one way
    // of a round trip.
    Record& latency(const Samples& samples, double divisor = 1) {
        const double scale = nanoseconds_per_tick() / divisor;
        const Samples::Summary all = samples.summary();
        return count("count", all.count)
            .number("p50_ns", all.p50 * scale)
            .number("p99_ns", all.p99 * scale)
            .number("p999_ns", all.p999 * scale)
            .number("p9999_ns", all.p9999 * scale)
            .number("max_ns", all.max * scale)
            .list("turn_p50_ns", scaled(samples.turn_medians(), scale));
    }

    // The bare ping-pong of the same turns, one way: where the processors were.
    Record& moment(const Samples& round_trips) {
        const double scale = nanoseconds_per_tick() / 2;
        return number("moment_ns", round_trips.summary().p50 * scale)
            .list("turn_moment_ns", scaled(round_trips.turn_medians(), scale));
    }

    void print() const {
        std::printf("{%s}\n", body_.c_str());
        std::fflush(stdout);
    }

private:
    Record& raw(std::string_view key, const std::string& value) {
        body_.append(body_.empty() ? "\"" : ",\"").append(key).append("\":").append(value);
        return *this;
    }
    static std::vector<double> scaled(std::vector<double> values, double factor) {
        for (double& value : values) {
            value *= factor;
        }
        return values;
    }
    static std::string format(double value) {
        char text[32];
        std::snprintf(text, sizeof(text), "%.9g", value);
        return text;
    }

    std::string body_;
};

}  // namespace penstock::bench
