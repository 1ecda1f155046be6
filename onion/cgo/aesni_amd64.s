//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// Offsets of the last eight powers and of the last, H.
#define POWER8 (hashKey_powers+128)
#define POWER1 (hashKey_powers+240)

// The byte of an AES word that SubWord(RotWord(w)) takes, for the last word of
// a round key, four times over.
DATA rotLast<>+0(SB)/8, $0x0c0f0e0d0c0f0e0d
DATA rotLast<>+8(SB)/8, $0x0c0f0e0d0c0f0e0d
GLOBL rotLast<>(SB), RODATA|NOPTR, $16

DATA ones<>+0(SB)/8, $0x0000000100000001
DATA ones<>+8(SB)/8, $0x0000000100000001
GLOBL ones<>(SB), RODATA|NOPTR, $16

// x^63 + x^62 + x^57, in the low half: the part of the field's polynomial that
// a reduction multiplies by.
DATA poly<>+0(SB)/8, $0xc200000000000000
DATA poly<>+8(SB)/8, $0
GLOBL poly<>(SB), RODATA|NOPTR, $16

// Increments of the last byte.
#define COUNT(i) \
	DATA counts<>+(16*i)(SB)/8, $0; \
	DATA counts<>+(16*i+8)(SB)/8, $(i<<56)
COUNT(0)
COUNT(1)
COUNT(2)
COUNT(3)
COUNT(4)
COUNT(5)
COUNT(6)
COUNT(7)
COUNT(8)
GLOBL counts<>(SB), RODATA|NOPTR, $144

// One round key from the one in X0, with rcon in X2 and rotLast in X1.
#define EXPAND(i) \
	MOVO X0, X3; \
	PSHUFB X1, X3; \
	AESENCLAST X2, X3; \
	PSLLL $1, X2; \
	MOVO X0, X4; \
	PSLLO $4, X4; \
	PXOR X4, X0; \
	MOVO X0, X4; \
	PSLLO $8, X4; \
	PXOR X4, X0; \
	PXOR X3, X0; \
	MOVOU X0, (aesKey_enc+16*i)(AX)

#define INVERT(i) \
	AESIMC X0, X3; \
	MOVOU X3, (aesKey_dec+160-16*i)(AX)

// func expandAESNI(ks *aesKey, key *block)
TEXT ·expandAESNI(SB), NOSPLIT, $0-16
	MOVQ ks+0(FP), AX
	MOVQ key+8(FP), BX
	MOVOU (BX), X0
	MOVOU rotLast<>(SB), X1
	MOVOU ones<>(SB), X2
	MOVOU X0, aesKey_enc(AX)
	MOVOU X0, (aesKey_dec+160)(AX)
	EXPAND(1)
	INVERT(1)
	EXPAND(2)
	INVERT(2)
	EXPAND(3)
	INVERT(3)
	EXPAND(4)
	INVERT(4)
	EXPAND(5)
	INVERT(5)
	EXPAND(6)
	INVERT(6)
	EXPAND(7)
	INVERT(7)
	EXPAND(8)
	INVERT(8)
	// x^8 is x^4 + x^3 + x + 1 in the field of AES: 1b.
	MOVOU ones<>(SB), X2
	MOVO X2, X3
	PSLLL $1, X3
	PXOR X3, X2
	PSLLL $3, X3
	PXOR X3, X2
	MOVOU ones<>(SB), X3
	PSLLL $3, X3
	PXOR X3, X2
	EXPAND(9)
	INVERT(9)
	EXPAND(10)
	MOVOU X0, aesKey_dec(AX)
	PXOR X0, X0
	PXOR X3, X3
	PXOR X4, X4
	RET

#define ROUND(op, i) \
	MOVOU (16*i)(AX), X1; \
	op X1, X0

#define ROUNDS(op, oplast) \
	ROUND(PXOR, 0); \
	ROUND(op, 1); \
	ROUND(op, 2); \
	ROUND(op, 3); \
	ROUND(op, 4); \
	ROUND(op, 5); \
	ROUND(op, 6); \
	ROUND(op, 7); \
	ROUND(op, 8); \
	ROUND(op, 9); \
	ROUND(oplast, 10)

// func encryptAESNI(ks *aesKey, x, mask *block)
TEXT ·encryptAESNI(SB), NOSPLIT, $0-24
	MOVQ ks+0(FP), AX
	MOVQ x+8(FP), BX
	MOVQ mask+16(FP), CX
	MOVOU (BX), X0
	MOVOU (CX), X2
	PXOR X2, X0
	ROUNDS(AESENC, AESENCLAST)
	PXOR X2, X0
	MOVOU X0, (BX)
	RET

// func decryptAESNI(ks *aesKey, x, mask *block)
TEXT ·decryptAESNI(SB), NOSPLIT, $0-24
	MOVQ ks+0(FP), AX
	MOVQ x+8(FP), BX
	MOVQ mask+16(FP), CX
	ADDQ $aesKey_dec, AX
	MOVOU (BX), X0
	MOVOU (CX), X2
	PXOR X2, X0
	ROUNDS(AESDEC, AESDECLAST)
	PXOR X2, X0
	MOVOU X0, (BX)
	RET

// Accumulators of unreduced products: X13 low, X14 middle, X15 high.

// Adds the product of the block in X0 and the power in X1; the middle part is
// that of the schoolbook.
#define ACCUMULATE \
	MOVO X0, X2; \
	MOVO X0, X3; \
	MOVO X0, X4; \
	PCLMULQDQ $0x00, X1, X0; \
	PCLMULQDQ $0x01, X1, X2; \
	PCLMULQDQ $0x10, X1, X3; \
	PCLMULQDQ $0x11, X1, X4; \
	PXOR X0, X13; \
	PXOR X2, X14; \
	PXOR X3, X14; \
	PXOR X4, X15

// Adds the product of the block in X0 and power number i of the last eight; the
// middle part is Karatsuba's. mids is the register with the sum of the power's
// halves.
#define KARATSUBA(i, mids, which) \
	MOVOU (POWER8+16*i)(AX), X1; \
	PSHUFD $0x4e, X0, X2; \
	MOVO X0, X3; \
	PXOR X0, X2; \
	PCLMULQDQ $0x00, X1, X0; \
	PCLMULQDQ $0x11, X1, X3; \
	PCLMULQDQ $which, mids, X2; \
	PXOR X0, X13; \
	PXOR X3, X15; \
	PXOR X2, X14

// Reduces the accumulators, with the schoolbook's middle, to the element X5;
// X12 is poly.
#define REDUCE \
	MOVO X14, X5; \
	PSLLO $8, X14; \
	PSRLO $8, X5; \
	PXOR X14, X13; \
	PXOR X5, X15; \
	PSHUFD $0x4e, X13, X5; \
	PCLMULQDQ $0x00, X12, X13; \
	PXOR X13, X5; \
	PSHUFD $0x4e, X5, X13; \
	PCLMULQDQ $0x00, X12, X5; \
	PXOR X13, X5; \
	PXOR X15, X5

#define CLEAR \
	PXOR X13, X13; \
	PXOR X14, X14; \
	PXOR X15, X15

#define COUNTER(i, x) \
	MOVOU counts<>+(16*i)(SB), x; \
	PADDB X8, x; \
	PXOR X9, x

#define ROUND8(op, i) \
	MOVOU (16*i)(AX), X9; \
	op X9, X0; \
	op X9, X1; \
	op X9, X2; \
	op X9, X3; \
	op X9, X4; \
	op X9, X5; \
	op X9, X6; \
	op X9, X7

// The keystream blocks of the counter in X8 and its seven successors, in X0 to
// X7. The counter advances by eight.
#define KEYSTREAM8 \
	MOVOU (AX), X9; \
	COUNTER(0, X0); \
	COUNTER(1, X1); \
	COUNTER(2, X2); \
	COUNTER(3, X3); \
	COUNTER(4, X4); \
	COUNTER(5, X5); \
	COUNTER(6, X6); \
	COUNTER(7, X7); \
	MOVOU counts<>+128(SB), X9; \
	PADDB X9, X8; \
	ROUND8(AESENC, 1); \
	ROUND8(AESENC, 2); \
	ROUND8(AESENC, 3); \
	ROUND8(AESENC, 4); \
	ROUND8(AESENC, 5); \
	ROUND8(AESENC, 6); \
	ROUND8(AESENC, 7); \
	ROUND8(AESENC, 8); \
	ROUND8(AESENC, 9); \
	ROUND8(AESENCLAST, 10)

#define XORDATA(i, x, t) \
	MOVOU (16*i)(DI), t; \
	PXOR t, x; \
	MOVOU x, (16*i)(DI)

// XORs x if there is a whole block left, else goes on with the partial block.
#define XORNEXT(x) \
	MOVO x, X0; \
	CMPQ CX, $16; \
	JLT partial; \
	XORDATA(0, X0, X9); \
	ADDQ $16, DI; \
	SUBQ $16, CX

// func keystreamAESNI(ks *aesKey, b, x *block, clear, first uint64, data *byte, n int)
TEXT ·keystreamAESNI(SB), NOSPLIT, $0-56
	MOVQ ks+0(FP), AX
	MOVQ b+8(FP), BX
	MOVQ x+16(FP), SI
	MOVQ data+40(FP), DI
	MOVQ n+48(FP), CX

	// The counter in X8: POLYVAL, then its last byte.
	MOVOU poly<>(SB), X12
	MOVOU (SI), X0
	MOVOU (BX), X1
	CLEAR
	ACCUMULATE
	REDUCE
	MOVQ clear+24(FP), DX
	SHLQ $56, DX
	MOVQ DX, X8
	PSLLO $8, X8
	PANDN X5, X8
	MOVQ first+32(FP), DX
	SHLQ $56, DX
	MOVQ DX, X0
	PSLLO $8, X0
	PADDB X0, X8
	CMPQ CX, $128
	JLT rest

loop:
	KEYSTREAM8
	XORDATA(0, X0, X9)
	XORDATA(1, X1, X10)
	XORDATA(2, X2, X11)
	XORDATA(3, X3, X12)
	XORDATA(4, X4, X13)
	XORDATA(5, X5, X14)
	XORDATA(6, X6, X15)
	XORDATA(7, X7, X9)
	ADDQ $128, DI
	SUBQ $128, CX
	CMPQ CX, $128
	JGE loop

rest:
	TESTQ CX, CX
	JEQ done
	KEYSTREAM8
	XORNEXT(X0)
	XORNEXT(X1)
	XORNEXT(X2)
	XORNEXT(X3)
	XORNEXT(X4)
	XORNEXT(X5)
	XORNEXT(X6)
	MOVO X7, X0

partial:
	TESTQ $8, CX
	JEQ four
	MOVQ X0, DX
	XORQ DX, (DI)
	PSRLO $8, X0
	ADDQ $8, DI

four:
	TESTQ $4, CX
	JEQ two
	MOVQ X0, DX
	XORL DX, (DI)
	PSRLO $4, X0
	ADDQ $4, DI

two:
	MOVQ X0, DX
	TESTQ $2, CX
	JEQ one
	XORW DX, (DI)
	SHRQ $16, DX
	ADDQ $2, DI

one:
	TESTQ $1, CX
	JEQ done
	XORB DX, (DI)

done:
	RET

// The product of the power in X5 and H in X6 becomes the power number i of the
// last eight.
#define NEXTPOWER(i) \
	MOVO X5, X0; \
	MOVO X6, X1; \
	CLEAR; \
	ACCUMULATE; \
	REDUCE; \
	MOVOU X5, (POWER8+16*i)(AX)

// Puts the sums of the halves of powers number 2i and 2i+1 in mids[i].
#define SUMHALVES(i) \
	MOVOU (POWER8+32*i)(AX), X0; \
	MOVOU (POWER8+32*i+16)(AX), X1; \
	MOVO X0, X2; \
	PUNPCKLQDQ X1, X0; \
	PUNPCKHQDQ X1, X2; \
	PXOR X2, X0; \
	MOVOU X0, (hashKey_mids+16*i)(AX)

// func expandCLMUL(hk *hashKey, key *block)
TEXT ·expandCLMUL(SB), NOSPLIT, $0-16
	MOVQ hk+0(FP), AX
	MOVQ key+8(FP), BX
	MOVOU poly<>(SB), X12
	MOVOU (BX), X5
	MOVO X5, X6
	MOVOU X5, POWER1(AX)
	NEXTPOWER(6)
	NEXTPOWER(5)
	NEXTPOWER(4)
	NEXTPOWER(3)
	NEXTPOWER(2)
	NEXTPOWER(1)
	NEXTPOWER(0)
	SUMHALVES(0)
	SUMHALVES(1)
	SUMHALVES(2)
	SUMHALVES(3)
	RET

// func hashCLMUL(hk *hashKey, x *block, data *byte, n int, last *byte)
TEXT ·hashCLMUL(SB), NOSPLIT, $0-40
	MOVQ hk+0(FP), AX
	MOVQ x+8(FP), BX
	MOVQ data+16(FP), SI
	MOVQ n+24(FP), CX
	MOVQ last+32(FP), DX
	MOVOU poly<>(SB), X12

	// The first one to eight blocks, x among them, so that the rest is groups
	// of eight. R9 points to the power of the next block.
	MOVQ CX, R8
	ANDQ $7, R8
	LEAQ POWER1(AX), R9
	MOVQ R8, R10
	SHLQ $4, R10
	SUBQ R10, R9
	CLEAR
	MOVOU (BX), X0

first:
	MOVOU (R9), X1
	ACCUMULATE
	ADDQ $16, R9
	SUBQ $1, R8
	JLT reduce
	MOVQ SI, R11
	CMPQ CX, $1
	CMOVQEQ DX, R11
	MOVOU (R11), X0
	ADDQ $16, SI
	SUBQ $1, CX
	JMP first

reduce:
	REDUCE
	TESTQ CX, CX
	JEQ done
	MOVOU (hashKey_mids+0)(AX), X8
	MOVOU (hashKey_mids+16)(AX), X9
	MOVOU (hashKey_mids+32)(AX), X10
	MOVOU (hashKey_mids+48)(AX), X11

	// Groups of eight; the element so far, X5, comes last because it is ready
	// last.
loop:
	LEAQ 112(SI), R11
	CMPQ CX, $8
	CMOVQEQ DX, R11
	CLEAR
	MOVOU (R11), X0
	KARATSUBA(7, X11, 0x10)
	MOVOU 96(SI), X0
	KARATSUBA(6, X11, 0x00)
	MOVOU 80(SI), X0
	KARATSUBA(5, X10, 0x10)
	MOVOU 64(SI), X0
	KARATSUBA(4, X10, 0x00)
	MOVOU 48(SI), X0
	KARATSUBA(3, X9, 0x10)
	MOVOU 32(SI), X0
	KARATSUBA(2, X9, 0x00)
	MOVOU 16(SI), X0
	KARATSUBA(1, X8, 0x10)
	MOVOU (SI), X0
	PXOR X5, X0
	KARATSUBA(0, X8, 0x00)
	PXOR X13, X14
	PXOR X15, X14
	REDUCE
	ADDQ $128, SI
	SUBQ $8, CX
	JNE loop

done:
	MOVOU X5, (BX)
	RET
