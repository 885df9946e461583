-- What Pktgen-DPDK does for scripts/pktgen/run: the search for the rate without loss (RFC 2544, 26.1),
-- latency and its variation, or a steady load during which somebody moves VMs.
--
-- Everything comes by the environment, and each result goes as a line of JSON to GODWIT_RESULTS.

local function setting(name, default)
    local value = os.getenv("GODWIT_" .. name)
    if value == nil or value == "" then return default end
    return tonumber(value) or value
end

local mode = setting("MODE", "throughput")
local seconds = setting("SECONDS", 60)
local repeats = setting("REPEATS", 20)
local resolution = setting("RESOLUTION", 0.1)
local highest = setting("RATE", 100)
local name = setting("NAME", "")
-- Length of a frame without FCS, for frames that Pktgen makes.
local bytes = setting("BYTES", 60)
local results = setting("RESULTS", "/dev/stdout")
local samples_file = setting("SAMPLES", "/tmp/godwit-pktgen.samples")

-- Port numbers of Pktgen.
local SEND, RECEIVE = "0", "1"
-- Frames under way arrive within this time, in milliseconds (RFC 2544 asks for 2 s).
local SETTLE = 2000
-- Latency probes a second.
local PROBES = 1000
-- Each search ends after so many trials.
local TRIALS = 20

local function tell(format, ...)
    local file = assert(io.open(results, "a"))
    file:write(string.format(format, ...), "\n")
    file:close()
end

local function counts(port)
    return pktgen.portStats(port, "port")[tonumber(port)]
end

-- The run is void where the generator's own clock or its sending cannot be trusted (R76).
local function void(sent, began, asked)
    local errors = sent.oerrors or 0
    local took = os.difftime(os.time(), began)
    if errors > 0 then return string.format("the generator could not send %d frames", errors) end
    -- os.time counts whole seconds.
    if math.abs(took - asked) > 2 then
        return string.format("%d s by the clock where %d were asked for", took, asked)
    end
    if (sent.opackets or 0) == 0 then return "the generator sent nothing" end
    return nil
end

-- Sends at `rate` percent of the link. Returns frames sent and received, or why the trial is void.
local function trial(rate, time)
    pktgen.clr()
    pktgen.set(SEND, "rate", rate)
    local began = os.time()
    pktgen.start(SEND)
    pktgen.delay(time * 1000)
    pktgen.stop(SEND)
    local ended = os.time()
    pktgen.delay(SETTLE)
    local sent, received = counts(SEND), counts(RECEIVE)
    local why = void(sent, began + (os.time() - ended), time)
    if why then return nil, nil, why end
    return sent.opackets, received.ipackets, nil
end

-- The highest rate at which every frame that was sent arrived.
local function throughput()
    local low, high, rate = 0, highest, highest
    local best_frames = 0
    for _ = 1, TRIALS do
        local sent, received, why = trial(rate, seconds)
        if why then
            tell('{"name":"%s","rate_percent":%.3f,"void":"%s"}', name, rate, why)
            return
        end
        tell('{"name":"%s","trial":true,"rate_percent":%.3f,"sent":%d,"received":%d}', name, rate, sent, received)
        if received >= sent then
            low, best_frames = rate, received
        else
            high = rate
        end
        if high - low <= resolution or low >= highest then break end
        rate = (low + high) / 2
    end
    tell('{"name":"%s","zero_loss_percent":%.3f,"zero_loss_mpps":%.4f,"seconds":%d}',
        name, low, best_frames / seconds / 1e6, seconds)
end

-- Latencies in nanoseconds, sorted, from the sampler's file: a heading, then one a line.
local function samples()
    local all = {}
    local file = io.open(samples_file, "r")
    if file == nil then return all end
    for line in file:lines() do
        local value = tonumber(line)
        if value then all[#all + 1] = value end
    end
    file:close()
    table.sort(all)
    return all
end

local function at(sorted, share)
    return sorted[math.max(1, math.ceil(share * #sorted))]
end

-- Latency at the rate that was given, and its variation: the 99.9th percentile less the minimum (R76).
local function latency()
    -- From the sending port's VM to the first VM elsewhere.
    pktgen.set_mac(SEND, "src", "02:10:00:00:00:01")
    pktgen.set_mac(SEND, "dst", "02:20:00:00:00:00")
    pktgen.set_ipaddr(SEND, "src", "10.1.0.1/32")
    pktgen.set_ipaddr(SEND, "dst", "10.128.0.0")
    pktgen.set_proto(SEND, "udp")
    pktgen.set(SEND, "size", bytes + 4)
    pktgen.latency(SEND, "enable")
    pktgen.latency(RECEIVE, "enable")
    for n = 1, repeats do
        os.remove(samples_file)
        pktgen.clr()
        pktgen.set(SEND, "rate", highest)
        pktgen.latsampler_params(RECEIVE, "simple", PROBES * seconds, PROBES, samples_file)
        local began = os.time()
        pktgen.start(SEND)
        pktgen.latsampler(RECEIVE, "enable")
        pktgen.delay(seconds * 1000)
        pktgen.latsampler(RECEIVE, "disable")
        pktgen.stop(SEND)
        local why = void(counts(SEND), began, seconds)
        local all = samples()
        if why == nil and #all == 0 then why = "no probe came back as it was sent" end
        if why then
            tell('{"name":"%s","trial":%d,"void":"%s"}', name, n, why)
        else
            tell('{"name":"%s","trial":%d,"rate_percent":%.3f,"probes":%d,"min_us":%.3f,"p50_us":%.3f,'
                .. '"p99_us":%.3f,"p999_us":%.3f,"max_us":%.3f,"pdv_us":%.3f}',
                name, n, highest, #all, all[1] / 1e3, at(all, 0.5) / 1e3, at(all, 0.99) / 1e3,
                at(all, 0.999) / 1e3, all[#all] / 1e3, (at(all, 0.999) - all[1]) / 1e3)
        end
        pktgen.delay(SETTLE)
    end
end

-- A steady load; what is lost is lost to what happened meanwhile.
local function load()
    tell('{"name":"%s","ready":true}', name)
    local sent, received, why = trial(highest, seconds)
    if why then
        tell('{"name":"%s","void":"%s"}', name, why)
    else
        tell('{"name":"%s","rate_percent":%.3f,"seconds":%d,"sent":%d,"received":%d,"lost":%d}',
            name, highest, seconds, sent, received, sent - received)
    end
end

pktgen.screen("off")
pktgen.set(SEND, "count", 0)
pktgen.delay(1000)
if mode == "throughput" then
    throughput()
elseif mode == "latency" then
    latency()
else
    load()
end
pktgen.quit()
