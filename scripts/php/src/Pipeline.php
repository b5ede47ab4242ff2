<?php

declare(strict_types=1);

namespace Mega;

use Mega\Exception\AnswerException;
use Mega\Exception\ConnectionException;
use Mega\Exception\UnknownOutcomeException;
use Psr\Log\LoggerInterface;

/**
 * The calls that have no answer yet, over one connection after the other. Matches answers by opaque; after a loss
 * writes again what the daemon cannot have and what it recognises, and settles the rest as unknown. Every call is
 * settled exactly once, or was abandoned by its caller.
 *
 * @internal
 */
final class Pipeline
{
    private const LAST_OPAQUE = 0xFFFFFFFF;

    /** mega answers a frame it cannot read under this one: no call has it. */
    private const NO_CALL = 0;

    private ?Connection $connection = null;

    /** @var array<int, Call> by opaque, oldest first */
    private array $calls = [];

    /** @var array<int, true> opaques of this connection whose answers nobody wants any more */
    private array $abandoned = [];

    private int $opaque = self::NO_CALL;
    private int $settled = 0;

    /** From a loss to the next answer. */
    private ?Outage $outage = null;

    /** What the last connection or attempt ended with, while there is an outage. */
    private string $why = '';

    public function __construct(
        private readonly string $address,
        private readonly Options $options,
        private readonly ?LoggerInterface $logger,
    ) {
    }

    /** Takes a call on; it is written by the next flush or wait. */
    public function begin(Call $call): void
    {
        $call->checkLength($this->options->maxFrame);
        do {
            $this->opaque = $this->opaque === self::LAST_OPAQUE ? self::NO_CALL + 1 : $this->opaque + 1;
        } while (isset($this->calls[$this->opaque]) || isset($this->abandoned[$this->opaque]));
        $this->calls[$this->opaque] = $call;
        if ($this->connection !== null) {
            $call->end = $this->connection->put($call->frame($this->opaque));
        }
    }

    public function isConnected(): bool
    {
        return $this->connection !== null;
    }

    /** Writes and reads what can be without waiting. */
    public function flush(): void
    {
        if ($this->connection !== null) {
            $this->exchange(0.0);
        }
    }

    /**
     * Waits until at least one call is settled; there must be one.
     *
     * @throws ConnectionException when mega cannot be reached for too long; every call is settled then
     */
    public function wait(): void
    {
        $settled = $this->settled;
        $deadline = null;
        while ($this->settled === $settled) {
            if ($this->connection === null) {
                $this->connect();
                $deadline = null;
                continue;
            }
            $deadline ??= Clock::now() + $this->options->timeout;
            $left = $deadline - Clock::now();
            $this->exchange(max($left, 0.0));
            if ($left <= 0 && $this->settled === $settled && $this->connection !== null) {
                $this->lose(new Lost("no answer came within {$this->options->timeout} s"));
            }
        }
    }

    /** Nobody waits for the calls of this inbox any more. */
    public function abandon(\SplQueue $inbox): void
    {
        foreach ($this->calls as $opaque => $call) {
            if ($call->inbox === $inbox) {
                unset($this->calls[$opaque]);
                if ($this->connection !== null) {
                    $this->abandoned[$opaque] = true;
                }
            }
        }
    }

    /** Ends the connection; calls without an answer are settled as after a loss. */
    public function close(): void
    {
        if ($this->connection !== null) {
            $this->drop();
        }
        $this->outage = null;
        $this->why = '';
        $this->settleAll('the client was closed');
    }

    private function exchange(float $seconds): void
    {
        try {
            foreach ($this->connection->exchange($seconds) as $answer) {
                $this->take($answer);
            }
        } catch (Lost $lost) {
            $this->lose($lost);
        }
    }

    private function take(Answer $answer): void
    {
        $opaque = $answer->opaque;
        if (isset($this->calls[$opaque])) {
            $call = $this->calls[$opaque];
            unset($this->calls[$opaque]);
            $this->settled++;
            $this->endOutage();
            $call->settle(match ($answer->code) {
                Answer::OK => null,
                default => AnswerException::of($call->command, (string) $call, $answer, $call->mayBeSent),
            });
        } elseif (isset($this->abandoned[$opaque])) {
            unset($this->abandoned[$opaque]);
        } else {
            throw new Garbled("an answer {$answer->code} came that no request asked for: {$answer->message}");
        }
    }

    /** What the daemon may have and would not recognise is settled at once; the rest is kept for the next connection. */
    private function lose(Lost $lost): void
    {
        $this->drop();
        $this->why = $lost->getMessage();
        $this->outage ??= new Outage($this->options->retryFor);
        if ($lost instanceof Garbled) {
            $this->outage->end();
        }
        $this->settleUnrepeatable();
        $this->logger?->warning('the connection to mega at {address} is lost: {why}; requests to write again: {kept}', [
            'address' => $this->address,
            'why' => $this->why,
            'kept' => count($this->calls),
        ]);
    }

    private function drop(): void
    {
        foreach ($this->calls as $call) {
            $call->mayBeSent = $call->mayBeSent || $this->connection->hasWritten($call->end);
        }
        $this->connection->close();
        $this->connection = null;
        $this->abandoned = [];
    }

    /** Connects, or settles calls. */
    private function connect(): void
    {
        $this->outage ??= new Outage($this->options->retryFor);
        $settled = $this->settled;
        while (($pause = $this->outage->pause()) !== null) {
            usleep((int) ($pause * 1e6));
            $this->settleUnrepeatable();
            if ($this->settled !== $settled) {
                return;
            }
            try {
                $this->connection = Connection::open($this->address, $this->options);
            } catch (Lost $lost) {
                $this->why = $lost->getMessage();
                $this->logger?->warning('mega at {address}: {why}', ['address' => $this->address, 'why' => $this->why]);
                continue;
            }
            foreach ($this->calls as $opaque => $call) {
                $call->end = $this->connection->put($call->frame($opaque));
            }
            if ($this->why === '') {
                // Nothing has been lost yet: a loss from here on has all its time.
                $this->outage = null;
            }
            return;
        }
        $why = $this->why;
        $this->outage = null;
        $this->why = '';
        $this->settleAll($why);
        throw new ConnectionException(
            "mega at {$this->address} cannot be used: $why (is it running there, and is this host among its allow[]?)"
        );
    }

    /** By an answer: a connection alone proves nothing. */
    private function endOutage(): void
    {
        if ($this->outage !== null && $this->why !== '') {
            $this->logger?->info('mega at {address} answers again', ['address' => $this->address]);
        }
        $this->outage = null;
        $this->why = '';
    }

    private function settleUnrepeatable(): void
    {
        foreach ($this->calls as $opaque => $call) {
            if ($call->mayBeSent && !$call->isRepeatable()) {
                $this->settleLost($opaque, $call, $this->why);
            }
        }
    }

    private function settleAll(string $why): void
    {
        foreach ($this->calls as $opaque => $call) {
            $this->settleLost($opaque, $call, $why);
        }
    }

    private function settleLost(int $opaque, Call $call, string $why): void
    {
        unset($this->calls[$opaque]);
        $this->settled++;
        $at = "mega at {$this->address}: $why";
        $call->settle(match (true) {
            !$call->mayBeSent => new ConnectionException("$call was not sent; $at"),
            $call->command === Command::Tset => new ConnectionException("$call has no answer; $at (tset it again)"),
            default => new UnknownOutcomeException(
                "$call may have been sent, its answer was lost; $at (look with `mega NAME find` before it is sent again)"
            ),
        });
    }
}
